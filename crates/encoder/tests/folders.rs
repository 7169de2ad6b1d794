//! Model folders in and out: every schema read, every misfit refused by name, weights and exports bit for bit.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use contaccum_encoder::{
    BertConfig, EncoderError, Layout, ModelCard, ModelConfig, ModelFolder, ModelSettings, PassageFormat,
    Pooling, Similarity, TextTokenizer, export_folder, load_weights, random_weights, save_weights,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn tiny_bert() -> BertConfig {
    BertConfig {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        vocab_size: 11,
        max_position_embeddings: 16,
        ..BertConfig::default()
    }
}

fn tiny() -> ModelConfig {
    tiny_bert().try_into().unwrap()
}

fn tokenizer(words: usize) -> TextTokenizer {
    TextTokenizer::from_vocabulary((0..words).map(|i| format!("word{i}")).collect()).unwrap()
}

fn put(folder: &Path, file: &str, content: Value) {
    fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
    fs::write(folder.join(file), content.to_string()).unwrap();
}

fn json_of(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
}

fn locate(folder: &Path) -> Result<ModelFolder, EncoderError> {
    ModelFolder::locate(folder.to_str().unwrap())
}

/// A folder with nothing but a tiny model's `config.json`.
fn plain_folder() -> TempDir {
    let folder = tempdir().unwrap();
    tiny().write(&folder.path().join("config.json")).unwrap();
    folder
}

/// A sentence-transformers folder before 5.4.
fn old_schema() -> TempDir {
    let folder = plain_folder();
    let module = |i: usize, path: &str, kind: &str| json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let modules = [
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ];
    put(folder.path(), "modules.json", json!(modules));
    let pooling = json!({ "word_embedding_dimension": 8, "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false });
    put(folder.path(), "1_Pooling/config.json", pooling);
    put(folder.path(), "sentence_bert_config.json", json!({ "max_seq_length": 12, "do_lower_case": false }));
    let usage = json!({ "__version__": { "sentence_transformers": "3.0.0" }, "similarity_fn_name": "dot",
        "prompts": { "query": "query: ", "document": "passage: " }, "default_prompt_name": null });
    put(folder.path(), "config_sentence_transformers.json", usage);
    folder
}

/// The same as sentence-transformers from 5.4 writes it.
fn new_schema() -> TempDir {
    let folder = plain_folder();
    let kinds = [
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ("2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
    ];
    let modules: Vec<Value> = kinds
        .iter()
        .enumerate()
        .map(|(i, (path, kind))| json!({ "idx": i, "name": i.to_string(), "path": path, "type": kind }))
        .collect();
    put(folder.path(), "modules.json", json!(modules));
    let pooling = json!({ "embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": true });
    put(folder.path(), "1_Pooling/config.json", pooling);
    let normalize =
        json!({ "module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding" });
    put(folder.path(), "2_Normalize/config.json", normalize);
    let transformer = json!({ "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
        "modality_config": { "text": { "method": "forward", "method_output_name": "last_hidden_state" } } });
    put(folder.path(), "sentence_bert_config.json", transformer);
    put(folder.path(), "tokenizer_config.json", json!({ "model_max_length": 12 }));
    let usage = json!({ "model_type": "SentenceTransformer", "similarity_fn_name": "dot",
        "prompts": { "query": "query: ", "document": "passage: " }, "default_prompt_name": null });
    put(folder.path(), "config_sentence_transformers.json", usage);
    folder
}

fn expected_settings() -> ModelSettings {
    ModelSettings {
        pooling: Pooling::Mean,
        normalize: true,
        similarity: Similarity::Dot,
        query_prompt: "query: ".into(),
        passage_prompt: "passage: ".into(),
        passage_format: PassageFormat::Pair,
        query_max_length: 12,
        passage_max_length: 12,
        max_seq_length: 12,
    }
}

/// The message with which a folder is refused when one of its files has this content.
fn refusal(folder: &TempDir, file: &str, content: Value) -> String {
    put(folder.path(), file, content);
    let error = locate(folder.path()).and_then(|model| model.settings()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(file) && !message.contains('\n'), "{message}");
    message
}

#[test]
fn both_schemas_of_sentence_transformers_give_the_same_settings() {
    for folder in [old_schema(), new_schema()] {
        assert_eq!(locate(folder.path()).unwrap().settings().unwrap(), expected_settings());
    }
}

#[test]
fn a_plain_folder_follows_the_convention_of_dpr() {
    let folder = plain_folder();
    let model = locate(folder.path()).unwrap();
    assert_eq!(model.config().unwrap(), tiny());
    assert_eq!(model.settings().unwrap(), ModelSettings::plain(&tiny()));
    assert_eq!(model.settings().unwrap().pooling, Pooling::Cls);
    assert_eq!(model.settings().unwrap().max_seq_length, 16);
}

#[test]
fn the_maximum_length_never_exceeds_the_positions_of_the_model() {
    let folder = old_schema();
    put(folder.path(), "sentence_bert_config.json", json!({ "max_seq_length": 512 }));
    assert_eq!(locate(folder.path()).unwrap().settings().unwrap().max_seq_length, 16);
    put(folder.path(), "sentence_bert_config.json", json!({ "max_seq_length": null }));
    put(folder.path(), "tokenizer_config.json", json!({ "model_max_length": 1e30 }));
    assert_eq!(locate(folder.path()).unwrap().settings().unwrap().max_seq_length, 16);
    put(folder.path(), "tokenizer_config.json", json!({ "model_max_length": 9 }));
    assert_eq!(locate(folder.path()).unwrap().settings().unwrap().max_seq_length, 9);
}

#[test]
fn queries_and_passages_get_the_prompts_that_sentence_transformers_gives_them_and_others_are_told() {
    let folder = old_schema();
    let prompts = |usage: Value| {
        put(folder.path(), "config_sentence_transformers.json", usage);
        let model = locate(folder.path()).unwrap();
        let settings = model.settings().unwrap();
        (settings.query_prompt, settings.passage_prompt, model.notes().unwrap().join("\n"))
    };
    let (query, passage, told) =
        prompts(json!({ "prompts": { "query": "ask: ", "all": "text: " }, "default_prompt_name": "all" }));
    assert_eq!((query.as_str(), passage.as_str()), ("ask: ", ""));
    assert!(told.contains("\"all\"") && told.lines().count() == 1, "{told}");
    let (_, passage, told) = prompts(json!({ "prompts": { "passage": "p: ", "corpus": "c: " } }));
    assert!(passage.is_empty() && told.contains("\"passage\"") && told.contains("\"corpus\""), "{told}");
    let (_, passage, told) = prompts(json!({ "prompts": { "document": "d: ", "passage": "" } }));
    assert_eq!((passage.as_str(), told.as_str()), ("d: ", ""));
    let (query, _, told) =
        prompts(json!({ "prompts": { "query": "ask: " }, "default_prompt_name": "query" }));
    assert_eq!((query.as_str(), told.as_str()), ("ask: ", ""));
    assert_eq!(locate(folder.path()).unwrap().settings().unwrap().similarity, Similarity::Cosine);
}

#[test]
fn formats_and_lengths_are_read_from_the_record_and_never_exceed_the_folders_own_length() {
    let folder = old_schema();
    let settings = || locate(folder.path()).unwrap().settings();
    put(folder.path(), "contaccum.json", json!({ "passage_format": "joined", "query_max_length": 5 }));
    let read = settings().unwrap();
    assert_eq!(read.passage_format, PassageFormat::Joined);
    assert_eq!((read.query_max_length, read.passage_max_length), (5, read.max_seq_length));
    put(folder.path(), "contaccum.json", json!({ "passage_max_length": 500 }));
    assert_eq!(settings().unwrap().passage_max_length, read.max_seq_length);
    refusal(&folder, "contaccum.json", json!({ "query_max_length": 2 }));
    refusal(&folder, "contaccum.json", json!({ "passage_format": "both" }));
}

#[test]
fn the_oldest_schema_keeps_the_transformer_in_its_own_folder() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("0_Transformer")).unwrap();
    tiny().write(&folder.path().join("0_Transformer/config.json")).unwrap();
    let modules = json!([
        { "idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer" },
        { "idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
    ]);
    put(folder.path(), "modules.json", modules);
    put(folder.path(), "1_Pooling/config.json", json!({ "pooling_mode_cls_token": true }));
    put(folder.path(), "0_Transformer/sentence_bert_config.json", json!({ "max_seq_length": 7 }));
    let settings = locate(folder.path()).unwrap().settings().unwrap();
    assert_eq!((settings.pooling, settings.normalize, settings.max_seq_length), (Pooling::Cls, false, 7));
}

#[test]
fn modules_that_would_change_the_vectors_are_refused_by_name() {
    let module = |kind: &str| json!({ "idx": 0, "name": "0", "path": "", "type": kind });
    let transformer = module("sentence_transformers.models.Transformer");
    let pooling = module("sentence_transformers.models.Pooling");
    for other in ["sentence_transformers.models.Dropout", "sentence_transformers.base.modules.dense.Densest"]
    {
        let modules = json!([transformer, pooling, module(other)]);
        assert!(refusal(&old_schema(), "modules.json", modules).contains(other));
    }
    let dense = module("sentence_transformers.models.Dense");
    assert!(
        refusal(&old_schema(), "modules.json", json!([transformer, dense, pooling]))
            .contains("follow each other")
    );
    let custom = json!([module("custom_st.Transformer"), pooling]);
    assert!(refusal(&old_schema(), "modules.json", custom).contains("custom_st.Transformer"));
    assert!(refusal(&old_schema(), "modules.json", json!([transformer])).contains("follow each other"));
    let outside = json!({ "path": "../elsewhere", "type": "sentence_transformers.models.Transformer" });
    assert!(refusal(&old_schema(), "modules.json", json!([outside, pooling])).contains("leaves the folder"));
}

#[test]
fn every_pooling_is_read_in_both_spellings_and_written_to_be_read_again() {
    let flags = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::LastToken),
        ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLenTokens),
        ("pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ];
    assert_eq!(flags.map(|(_, pooling)| pooling).len(), Pooling::ALL.len());
    for (flag, pooling) in flags {
        let folder = old_schema();
        let read = |content: Value| {
            put(folder.path(), "1_Pooling/config.json", content);
            locate(folder.path()).unwrap().settings().unwrap().pooling
        };
        assert_eq!(read(json!({ flag: true, "pooling_mode_unknown": false })), pooling);
        assert_eq!(read(json!({ "pooling_mode": pooling.name(), flag: false })), pooling);
        assert_eq!(read(json!({ "pooling_mode": [pooling.name()] })), pooling);
        let parent = tempdir().unwrap();
        let path = parent.path().join("model");
        export(&path, 1, &ModelSettings { pooling, ..expected_settings() }).unwrap();
        assert_eq!(locate(&path).unwrap().settings().unwrap().pooling, pooling);
        let written = json_of(&path, "1_Pooling/config.json");
        let on = flags.iter().filter(|(flag, _)| written[*flag] == true).count();
        assert!(on == 1 && written[flag] == true, "{written}");
    }
}

#[test]
fn a_pooling_that_is_not_done_is_refused_by_name() {
    let place = "1_Pooling/config.json";
    let refused = |content: Value| refusal(&old_schema(), place, content);
    assert!(
        refused(json!({ "pooling_mode_median_tokens": true })).contains("pooling_mode_median_tokens is not")
    );
    assert!(
        refused(json!({ "pooling_mode": "median" })).contains("pooling median is not supported; cls, mean")
    );
    let both = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true });
    assert!(refused(both).contains("pooling cls+mean joins several vectors"));
    assert!(refused(json!({ "pooling_mode": ["cls", "mean"] })).contains("pooling cls+mean"));
    assert!(refused(json!({ "pooling_mode": "mean", "include_prompt": false })).contains("include_prompt"));
    assert!(refused(json!({ "pooling_mode": "mean", "embedding_dimension": 9 })).contains("hidden_size 8"));
}

#[test]
fn other_settings_that_cannot_be_followed_are_refused_by_name() {
    let usage = "config_sentence_transformers.json";
    let refused = |file: &str, content: Value| refusal(&new_schema(), file, content);
    assert!(refused(usage, json!({ "similarity_fn_name": "manhattan" })).contains("manhattan"));
    assert!(refused(usage, json!({ "model_type": "SparseEncoder" })).contains("SparseEncoder"));
    assert!(
        refused("sentence_bert_config.json", json!({ "transformer_task": "fill-mask" }))
            .contains("fill-mask")
    );
    assert!(refused("sentence_bert_config.json", json!({ "max_seq_length": 2 })).contains("at least 3"));
    let tokens = json!({ "module_input_name": "token_embeddings" });
    assert!(refused("2_Normalize/config.json", tokens).contains("token_embeddings"));
    let folder = old_schema();
    fs::remove_dir_all(folder.path().join("1_Pooling")).unwrap();
    let error = locate(folder.path()).unwrap().settings().unwrap_err();
    assert!(matches!(error, EncoderError::FileMissing { .. }), "{error}");
}

#[test]
fn fields_a_config_leaves_out_are_those_of_bert_base() {
    let folder = tempdir().unwrap();
    put(folder.path(), "config.json", json!({ "model_type": "bert", "hidden_size": 384, "new_field": [1] }));
    let config = locate(folder.path()).unwrap().config().unwrap();
    let expected = BertConfig { hidden_size: 384, ..BertConfig::default() };
    assert_eq!(config, expected.try_into().unwrap());
    assert_eq!((config.architecture().token_types, config.architecture().norm.epsilon), (2, 1e-12));
}

#[test]
fn a_written_config_reads_back_and_names_the_architecture() {
    let folder = plain_folder();
    assert_eq!(ModelConfig::read(&folder.path().join("config.json")).unwrap(), tiny());
    let written = json_of(folder.path(), "config.json");
    assert_eq!(written["architectures"], json!(["BertModel"]));
    assert_eq!(written["model_type"], "bert");
}

#[test]
fn configurations_that_are_not_a_bert_encoder_are_refused_by_name() {
    let cases = [
        ("model_type", json!("t5"), "t5"),
        ("hidden_act", json!("swiglu"), "swiglu is not supported; gelu, gelu_python"),
        ("position_embedding_type", json!("relative_key"), "relative_key"),
        ("is_decoder", json!(true), "is_decoder"),
        ("num_attention_heads", json!(3), "not a multiple"),
        ("num_attention_heads", json!(0), "num_attention_heads is 0"),
        ("vocab_size", json!(u64::MAX), "vocab_size is"),
        ("type_vocab_size", json!(0), "type_vocab_size is 0"),
        ("vocab_size", json!(11.5), "vocab_size: invalid type: floating point"),
        ("pad_token_id", json!(-1), "pad_token_id: invalid value"),
        ("hidden_dropout_prob", json!(1.0), "hidden_dropout_prob"),
        ("layer_norm_eps", json!(0.0), "layer_norm_eps"),
        ("pad_token_id", json!(11), "pad_token_id 11"),
        ("hidden_size", json!("wide"), "hidden_size: invalid type: string"),
    ];
    for (field, value, expected) in cases {
        let folder = plain_folder();
        let mut config = json_of(folder.path(), "config.json");
        config[field] = value;
        assert!(refusal(&folder, "config.json", config).contains(expected), "{field}");
    }
    assert!(refusal(&plain_folder(), "config.json", json!([])).contains("broken JSON"));
    assert!(ModelConfig::try_from(BertConfig { num_attention_heads: 5, ..tiny_bert() }).is_err());
}

#[test]
fn broken_json_is_told_with_its_line() {
    let folder = plain_folder();
    fs::write(folder.path().join("config.json"), "{\n  \"hidden_size\": 8,,\n}").unwrap();
    let message = locate(folder.path()).unwrap().config().unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("line 2"), "{message}");
}

#[test]
fn a_folder_that_is_not_there_and_a_file_in_its_place_are_told_apart() {
    let folder = plain_folder();
    let missing = locate(&folder.path().join("nothing")).unwrap_err();
    assert!(matches!(missing, EncoderError::FolderMissing { .. }), "{missing}");
    let file = locate(&folder.path().join("config.json")).unwrap_err();
    assert!(matches!(file, EncoderError::NotAFolder { .. }), "{file}");
    fs::remove_file(folder.path().join("config.json")).unwrap();
    let config = locate(folder.path()).unwrap().config().unwrap_err();
    assert!(matches!(config, EncoderError::FileMissing { .. }), "{config}");
}

#[test]
fn weights_in_another_format_come_with_the_way_to_convert_them() {
    let folder = plain_folder();
    let layout = Layout::new(&tiny());
    let message = || locate(folder.path()).unwrap().weights(&layout).unwrap_err().to_string();
    assert!(message().contains("no weights are there"), "{}", message());
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert!(
        message().contains("pytorch_model.bin") && message().contains("save_pretrained"),
        "{}",
        message()
    );
}

#[test]
fn a_tokenizer_larger_than_the_embedding_table_is_the_wrong_tokenizer() {
    let folder = plain_folder();
    tokenizer(7).save(folder.path(), 16).unwrap();
    let error = locate(folder.path()).unwrap().tokenizer().unwrap_err();
    assert!(matches!(error, EncoderError::VocabularyTooLarge { vocabulary: 12, rows: 11, .. }), "{error}");
    assert!(error.to_string().contains("wrong tokenizer"));
    tokenizer(6).save(folder.path(), 16).unwrap();
    assert_eq!(locate(folder.path()).unwrap().tokenizer().unwrap().vocabulary_size(), 11);
}

#[test]
fn minilm_loads_whole() {
    let Some(shared) = common::shared() else { return };
    let model = locate(&shared.join("models/all-MiniLM-L6-v2")).unwrap();
    let config = model.config().unwrap();
    let settings = model.settings().unwrap();
    assert_eq!((settings.pooling, settings.normalize, settings.max_seq_length), (Pooling::Mean, true, 256));
    let layout = Layout::new(&config);
    assert_eq!(layout.parameters(), 22_565_376);
    let weights = model.weights(&layout).unwrap();
    let file = fs::read(model.path().join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    for tensor in layout.tensors() {
        let view = tensors.tensor(&tensor.name).unwrap();
        let bytes: Vec<u8> = weights[tensor.range.clone()].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert!(bytes == view.data(), "{}", tensor.name);
    }
}

#[test]
fn saved_weights_load_bit_for_bit_and_are_sound_for_other_readers() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let layout = Layout::new(&tiny());
    let weights = random_weights(&tiny(), &layout, 1);
    save_weights(&path, &[], &layout, &weights).unwrap();
    assert_eq!(load_weights(&path, &[], &layout).unwrap(), weights);

    let file = fs::read(&path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    assert!(metadata.info("encoder.layer.1.attention.self.value.weight").is_some());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

/// Writes the layout's tensors under other names and in other numbers, with a few that belong to heads.
fn write_variant(
    path: &Path,
    layout: &Layout,
    name: impl Fn(&str) -> String,
    dtype: Dtype,
    bytes: impl Fn(usize) -> Vec<u8>,
) {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = layout
        .tensors()
        .iter()
        .map(|tensor| {
            (name(&tensor.name), tensor.shape.clone(), tensor.range.clone().flat_map(&bytes).collect())
        })
        .collect();
    for extra in ["pooler.dense.weight", "embeddings.position_ids", "cls.predictions.bias"] {
        tensors.push((name(extra), vec![1], bytes(0)));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn prefixes_old_names_and_other_number_types_give_the_same_weights() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let layout = Layout::new(&tiny());
    // Small integers over eight are the same in all four types.
    let value = |i: usize| (i % 31) as f32 / 8.0 - 1.0;
    let expected: Vec<f32> = (0..layout.parameters()).map(value).collect();
    let plain = |name: &str| name.to_owned();
    let prefixed = |name: &str| format!("bert.{name}");
    let old = |name: &str| {
        let name =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        format!("bert.{name}")
    };
    let f32_bytes = |i: usize| value(i).to_le_bytes().to_vec();
    let load = || load_weights(&path, &[], &layout).unwrap();

    write_variant(&path, &layout, plain, Dtype::F32, f32_bytes);
    assert_eq!(load(), expected);
    write_variant(&path, &layout, prefixed, Dtype::F32, f32_bytes);
    assert_eq!(load(), expected);
    write_variant(&path, &layout, old, Dtype::F32, f32_bytes);
    assert_eq!(load(), expected);
    write_variant(&path, &layout, plain, Dtype::F64, |i| f64::from(value(i)).to_le_bytes().to_vec());
    assert_eq!(load(), expected);
    write_variant(&path, &layout, plain, Dtype::F16, |i| {
        half::f16::from_f32(value(i)).to_le_bytes().to_vec()
    });
    assert_eq!(load(), expected);
    write_variant(&path, &layout, plain, Dtype::BF16, |i| {
        half::bf16::from_f32(value(i)).to_le_bytes().to_vec()
    });
    assert_eq!(load(), expected);
}

#[test]
fn a_weights_file_that_does_not_fit_is_refused_with_the_tensor() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let layout = Layout::new(&tiny());
    let mut weights = random_weights(&tiny(), &layout, 1);
    save_weights(&path, &[], &layout, &weights).unwrap();

    let deeper = Layout::new(&BertConfig { num_hidden_layers: 3, ..tiny_bert() }.try_into().unwrap());
    let error = load_weights(&path, &[], &deeper).unwrap_err();
    assert!(error.to_string().contains("encoder.layer.2.attention.self.query.weight is missing"), "{error}");

    let wider = Layout::new(&BertConfig { intermediate_size: 13, ..tiny_bert() }.try_into().unwrap());
    let error = load_weights(&path, &[], &wider).unwrap_err();
    assert!(matches!(error, EncoderError::TensorShape { .. }), "{error}");
    assert!(error.to_string().contains("[12, 8]") && error.to_string().contains("[13, 8]"), "{error}");

    write_variant(&path, &layout, str::to_owned, Dtype::I32, |_| vec![0; 4]);
    let error = load_weights(&path, &[], &layout).unwrap_err();
    assert!(error.to_string().contains("I32"), "{error}");

    weights[5] = f32::NAN;
    save_weights(&path, &[], &layout, &weights).unwrap();
    let error = load_weights(&path, &[], &layout).unwrap_err();
    assert!(error.to_string().contains("embeddings.word_embeddings.weight holds a NaN"), "{error}");
}

#[test]
fn a_weights_file_cut_short_anywhere_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let layout = Layout::new(&tiny());
    save_weights(&path, &[], &layout, &random_weights(&tiny(), &layout, 1)).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load_weights(&path, &[], &layout).unwrap_err();
        match length {
            0 => assert!(error.to_string().contains("is empty; fetch it again"), "{error}"),
            _ => assert!(matches!(error, EncoderError::WeightsBroken { .. }), "{length}: {error}"),
        }
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert!(matches!(load_weights(&path, &[], &layout), Err(EncoderError::WeightsBroken { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(load_weights(&path, &[], &layout), Err(EncoderError::FileMissing { .. })));
}

#[test]
fn random_weights_start_as_bert_does_and_follow_the_seed() {
    let config = BertConfig { hidden_size: 64, pad_token_id: 3, vocab_size: 500, ..tiny_bert() };
    let config = ModelConfig::try_from(config).unwrap();
    let layout = Layout::new(&config);
    let weights = random_weights(&config, &layout, 42);
    assert_eq!(weights, random_weights(&config, &layout, 42));
    assert_ne!(weights, random_weights(&config, &layout, 43));
    for tensor in layout.tensors() {
        let values = &weights[tensor.range.clone()];
        let all = |expected: f32| values.iter().all(|value| *value == expected);
        if tensor.name.ends_with(".bias") {
            assert!(all(0.0), "{}", tensor.name);
        } else if tensor.name.contains("LayerNorm") {
            assert!(all(1.0), "{}", tensor.name);
        } else {
            assert!(values.iter().filter(|value| **value == 0.0).count() <= 64, "{}", tensor.name);
        }
    }
    let words = &weights[layout.tensors()[0].range.clone()];
    let padding = 3 * 64..4 * 64;
    assert!(words[padding.clone()].iter().all(|value| *value == 0.0));
    let rest: Vec<f64> =
        words.iter().enumerate().filter(|(i, _)| !padding.contains(i)).map(|(_, w)| f64::from(*w)).collect();
    let mean = rest.iter().sum::<f64>() / rest.len() as f64;
    let deviation = (rest.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / rest.len() as f64).sqrt();
    // Six standard errors of 31,936 draws.
    assert!(mean.abs() < 6.0 * 0.02 / 178.0 && (deviation - 0.02).abs() < 6.0 * 0.02 / 252.0);
}

fn card() -> ModelCard {
    ModelCard {
        title: "A tiny\nmodel".into(),
        base_model: Some("someone/some-model".into()),
        pair: None,
        training: vec![("--temperature".into(), "0.05".into()), ("a|b".into(), "two\nlines".into())],
    }
}

fn export(path: &Path, seed: u64, settings: &ModelSettings) -> Result<(), EncoderError> {
    let layout = Layout::new(&tiny());
    let weights = random_weights(&tiny(), &layout, seed);
    export_folder(path, &tiny(), &layout, &weights, &tokenizer(6), settings, &card())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().strip_prefix(folder).unwrap().into())
        .collect();
    entries.sort();
    entries
}

#[test]
fn an_export_reads_back_to_the_same_model() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("runs/model");
    export(&path, 1, &expected_settings()).unwrap();
    let model = locate(&path).unwrap();
    let layout = Layout::new(&tiny());
    assert_eq!(model.config().unwrap(), tiny());
    assert_eq!(model.settings().unwrap(), expected_settings());
    assert_eq!(model.weights(&layout).unwrap(), random_weights(&tiny(), &layout, 1));
    let text = "word1 word5 other";
    assert_eq!(model.tokenizer().unwrap().query(text, 12).unwrap(), tokenizer(6).query(text, 12).unwrap());
    assert_eq!(entries(path.parent().unwrap()), [Path::new("model")]);

    let cls = ModelSettings { pooling: Pooling::Cls, normalize: false, ..expected_settings() };
    export(&path, 2, &cls).unwrap();
    assert_eq!(locate(&path).unwrap().settings().unwrap(), cls);
    assert!(!path.join("2_Normalize").exists());
}

#[test]
fn an_export_has_the_files_and_fields_that_sentence_transformers_reads() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("model");
    export(&path, 1, &expected_settings()).unwrap();
    let expected = [
        "1_Pooling",
        "2_Normalize",
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "contaccum.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ];
    assert_eq!(entries(&path), expected.map(PathBuf::from));
    let modules = json_of(&path, "modules.json");
    assert_eq!(modules[0]["type"], "sentence_transformers.models.Transformer");
    assert_eq!(modules[1]["path"], "1_Pooling");
    assert_eq!(modules[2]["type"], "sentence_transformers.models.Normalize");
    let pooling = json_of(&path, "1_Pooling/config.json");
    assert_eq!(pooling["word_embedding_dimension"], 8);
    assert_eq!(pooling["pooling_mode_mean_tokens"], true);
    assert_eq!(pooling["pooling_mode_cls_token"], false);
    assert_eq!(json_of(&path, "sentence_bert_config.json")["max_seq_length"], 12);
    let usage = json_of(&path, "config_sentence_transformers.json");
    assert_eq!(usage["similarity_fn_name"], "dot");
    assert_eq!(usage["prompts"], json!({ "query": "query: ", "document": "passage: " }));

    let readme = fs::read_to_string(path.join("README.md")).unwrap();
    assert!(readme.starts_with("---\nlibrary_name: sentence-transformers\n"));
    assert!(readme.contains("base_model: someone/some-model\n---\n\n# A tiny model\n"), "{readme}");
    assert!(readme.contains("| a\\|b | two lines |"), "{readme}");
    assert!(readme.contains("[\"A title\", \"The text of a passage.\"]"), "{readme}");
}

#[test]
fn an_export_replaces_an_earlier_one_and_nothing_else() {
    let parent = tempdir().unwrap();
    let path = parent.path().join("model");
    fs::create_dir(&path).unwrap();
    export(&path, 1, &expected_settings()).unwrap();
    // What a killed export leaves behind does not hinder the next.
    fs::create_dir(parent.path().join(".model.contaccum-partial")).unwrap();
    fs::write(parent.path().join(".model.contaccum-partial/half"), "").unwrap();
    export(&path, 2, &expected_settings()).unwrap();
    let layout = Layout::new(&tiny());
    assert_eq!(locate(&path).unwrap().weights(&layout).unwrap(), random_weights(&tiny(), &layout, 2));
    assert_eq!(entries(parent.path()), [Path::new("model")]);

    let precious = parent.path().join("precious");
    put(&precious, "thesis.json", json!({}));
    let file = precious.join("thesis.json");
    for target in [&precious, &file] {
        let error = export(target, 3, &expected_settings()).unwrap_err();
        assert!(matches!(error, EncoderError::TargetExists { .. }), "{error}");
    }
    assert_eq!(entries(&precious), [Path::new("thesis.json")]);
}

#[test]
fn an_export_that_cannot_be_written_says_so_and_leaves_the_earlier_one() {
    let parent = tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = export(&file.join("model"), 1, &expected_settings()).unwrap_err();
    assert!(matches!(error, EncoderError::File(_) | EncoderError::TargetExists { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));

    let path = parent.path().join("model");
    export(&path, 1, &expected_settings()).unwrap();
    // Another process is writing the unfinished folder.
    fs::create_dir(parent.path().join(".model.contaccum-partial")).unwrap();
    let other = fs::File::open(parent.path().join(".model.contaccum-partial")).unwrap();
    other.lock().unwrap();
    let error = export(&path, 2, &expected_settings()).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let layout = Layout::new(&tiny());
    assert_eq!(locate(&path).unwrap().weights(&layout).unwrap(), random_weights(&tiny(), &layout, 1));
}
