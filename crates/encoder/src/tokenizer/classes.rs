//! What transformers' tokenizer classes build from a vocabulary and the fields of `tokenizer_config.json`.

use serde_json::{Map, Value, json};

pub(super) type Fields = Map<String, Value>;

/// The tokens every BERT vocabulary sets apart, in the order a vocabulary of ours opens with, by their roles.
pub(super) const BERT_TOKENS: [(&str, &str); 5] = [
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];

/// Those of RoBERTa and what came after it.
const ROBERTA_TOKENS: [(&str, &str); 7] = [
    ("bos_token", "<s>"),
    ("pad_token", "<pad>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("cls_token", "<s>"),
    ("sep_token", "</s>"),
    ("mask_token", "<mask>"),
];

/// MPNet's, whose unknown token is BERT's.
const MPNET_TOKENS: [(&str, &str); 7] = [
    ("bos_token", "<s>"),
    ("pad_token", "<pad>"),
    ("eos_token", "</s>"),
    ("unk_token", "[UNK]"),
    ("cls_token", "<s>"),
    ("sep_token", "</s>"),
    ("mask_token", "<mask>"),
];

/// transformers' classes that build BERT's tokenizer, and give a model token types.
const BERT_CLASSES: [&str; 9] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
];

/// What is said about BERT's normalizer, by its names in `tokenizer_config.json` and in `tokenizer.json`.
pub(super) const FLAGS: [(&str, &str); 3] = [
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
];

/// A class by what it builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// BERT's WordPiece.
    Bert,
    /// The same for a model without token types.
    DistilBert,
    /// BERT's WordPiece in RoBERTa's frame.
    Mpnet,
    /// Byte-level BPE.
    Roberta,
    /// Unigram.
    XlmRoberta,
    /// What `tokenizer.json` says.
    AsItIs,
}

impl Class {
    /// The class of this name, without `Fast`, for a model of this type; `None` where the name is of none known.
    pub(super) fn named(name: &str, model_type: &str) -> Option<Self> {
        // Their files name classes that do not fit, so that transformers takes them as they are.
        if model_type == "modernbert" {
            return Some(Self::AsItIs);
        }
        match name {
            "DistilBertTokenizer" => Some(Self::DistilBert),
            "MPNetTokenizer" => Some(Self::Mpnet),
            "RobertaTokenizer" => Some(Self::Roberta),
            "XLMRobertaTokenizer" => Some(Self::XlmRoberta),
            "PreTrainedTokenizer" | "TokenizersBackend" => Some(Self::AsItIs),
            bert if BERT_CLASSES.contains(&bert) => Some(Self::Bert),
            _ => None,
        }
    }

    /// The class of a model whose files name none.
    pub(super) fn of_model(model_type: &str) -> Self {
        match model_type {
            "mpnet" => Self::Mpnet,
            "roberta" => Self::Roberta,
            "xlm-roberta" => Self::XlmRoberta,
            "modernbert" => Self::AsItIs,
            // DistilBERT too.
            _ => Self::Bert,
        }
    }

    /// The model it builds.
    pub(super) fn model(self) -> Option<&'static str> {
        match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => Some("WordPiece"),
            Self::Roberta => Some("BPE"),
            Self::XlmRoberta => Some("Unigram"),
            Self::AsItIs => None,
        }
    }

    /// Names of the special tokens, by role, where the files give none.
    pub(super) fn tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert | Self::DistilBert => &BERT_TOKENS,
            Self::Mpnet => &MPNET_TOKENS,
            Self::Roberta | Self::XlmRoberta => &ROBERTA_TOKENS,
            Self::AsItIs => &[],
        }
    }

    /// The role of the token before a text and of the one behind it.
    pub(super) fn frame(self) -> [&'static str; 2] {
        match self {
            Self::XlmRoberta => ["bos_token", "eos_token"],
            Self::Bert | Self::DistilBert | Self::Mpnet | Self::Roberta | Self::AsItIs => {
                ["cls_token", "sep_token"]
            }
        }
    }

    /// Whether a model of this tokenizer is told which tokens are of the second text, unless the files say.
    pub(super) fn gives_types(self) -> bool {
        self == Self::Bert
    }

    /// The `tokenizer.json` that the class builds, without added tokens. `own` is the file of the folder, where there is
    /// one; `frame` the tokens around a text, with their ids.
    pub(super) fn build(self, model: Value, own: &Value, flags: &Fields, frame: [(&str, u64); 2]) -> Value {
        let [cls, sep] = frame;
        let flag = |name: &str, default: bool| flags.get(name).cloned().unwrap_or(json!(default));
        let roberta = || {
            json!({ "type": "RobertaProcessing", "sep": sep, "cls": cls, "trim_offsets": true,
                "add_prefix_space": flag("add_prefix_space", false) })
        };
        let marked = flag("add_prefix_space", true);
        let metaspace = json!({ "type": "Metaspace", "replacement": "▁", "split": true,
            "prepend_scheme": if marked == true { "always" } else { "never" } });
        let byte_level = json!({ "type": "ByteLevel", "trim_offsets": true, "use_regex": true,
            "add_prefix_space": flag("add_prefix_space", false) });
        let words = json!({ "type": "BertPreTokenizer" });
        let pieces = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
        let (normalizer, pre_tokenizer, decoder, post_processor) = match self {
            Self::Bert | Self::DistilBert => {
                let frame = json!({ "type": "BertProcessing", "sep": sep, "cls": cls });
                (bert_normalizer(flags), words, pieces, frame)
            }
            Self::Mpnet => (bert_normalizer(flags), words, pieces, roberta()),
            Self::Roberta => (Value::Null, byte_level.clone(), byte_level, roberta()),
            Self::XlmRoberta => {
                let split = json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, metaspace] });
                (precompiled(own).unwrap_or_default(), split, metaspace, xlm_frame(cls, sep))
            }
            Self::AsItIs => return own.clone(),
        };
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model,
        })
    }
}

fn bert_normalizer(flags: &Fields) -> Value {
    let flag = |name: &str, default: Value| flags.get(name).cloned().unwrap_or(default);
    json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": flag("tokenize_chinese_chars", json!(true)),
        "strip_accents": flag("strip_accents", Value::Null),
        "lowercase": flag("do_lower_case", json!(true)),
    })
}

/// The table of characters in a `tokenizer.json`: the first one.
fn precompiled(own: &Value) -> Option<Value> {
    let normalizer = &own["normalizer"];
    let list = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    list.iter().find(|component| component["type"] == "Precompiled").cloned()
}

fn xlm_frame(bos: (&str, u64), eos: (&str, u64)) -> Value {
    let special = |(token, _): (&str, u64)| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let named =
        |(token, id): (&str, u64)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    let tokens: Fields = [named(bos), named(eos)].into_iter().collect();
    json!({
        "type": "TemplateProcessing",
        "single": [special(bos), text("A"), special(eos)],
        "pair": [special(bos), text("A"), special(eos), special(eos), text("B"), special(eos)],
        "special_tokens": tokens,
    })
}

/// A model of this vocabulary as a class builds it.
pub(super) fn word_piece(vocabulary: Fields, unknown: &str) -> Value {
    json!({ "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocabulary })
}

pub(super) fn byte_level_bpe(vocabulary: Value, merges: Value) -> Value {
    json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
        "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": vocabulary, "merges": merges })
}

/// The unknown token is the fourth, whatever a file says.
pub(super) fn unigram(vocabulary: Value) -> Value {
    json!({ "type": "Unigram", "unk_id": 3, "byte_fallback": false, "vocab": vocabulary })
}

/// The class and flags by which transformers rebuilds this very tokenizer: `BertTokenizer`, where it is what that
/// class makes of vocabulary and flags, else none, and `tokenizer.json` is taken as it is.
pub(super) fn python_class(definition: &Value, bert_frame: bool) -> Fields {
    let normalizer = &definition["normalizer"];
    let flags = FLAGS.into_iter().map(|(flag, name)| (flag.to_owned(), normalizer[name].clone()));
    let flags: Fields = flags.collect();
    let model = word_piece(Fields::new(), "[UNK]");
    let bert = Class::Bert.build(Value::Null, &Value::Null, &flags, [("", 0); 2]);
    // That class sets all five apart, so that they are found in texts.
    let added = definition["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let same = bert_frame
        && ["normalizer", "pre_tokenizer"].iter().all(|part| definition[part] == bert[part])
        && ["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"]
            .iter()
            .all(|field| definition["model"][field] == model[field])
        && BERT_TOKENS.iter().all(|(_, token)| added.iter().any(|added| added["content"] == *token));
    let class = if same { "BertTokenizer" } else { "PreTrainedTokenizerFast" };
    let mut fields = if same { flags } else { Fields::new() };
    fields.insert("tokenizer_class".into(), json!(class));
    fields
}
