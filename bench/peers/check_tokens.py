#!/usr/bin/env python3
"""Are the ids of every kind of tokenizer those of transformers, from the folder and from the one saved again?

    cargo build --release --workspace --examples
    check_tokens.py target/release/examples/tokens --corpus DATA/corpus.jsonl [FOLDER ...]

Trains a small tokenizer of each kind on the corpus and saves it in the ways that folders come (transformers' class,
tokenizer.json alone, older files, renamed classes), then holds ids and token types of thousands of texts and pairs
against AutoTokenizer: emoji, marks, Chinese, control characters, words without end, blanks, pieces of special tokens. FOLDERs
are checked too. Exits 1 where one id differs.
"""
import argparse, json, pathlib, random, shutil, subprocess, sys, tempfile
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from common import read_texts, report

S = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
B = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
ROLES = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
PARTS = ["the", "river", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u200b", "\u200d", "\u00ad", "\ufeff",
         ".", ",", "!?", "'s", "'re", "'", "``", "-", "_", "<", "<\u0338", "=", "▁", "Ġ", "中国", "東京", "、", "。", "！", "한국어", "각",
         "カ\u3099", "ガ", "ﷺ", "ﬁ", "İ", "ß", "Å", "e\u0301", "\u0301", "\u0600", "\u0600a", "กำ", "हिन्दी", "العربية", "שלום", "№", "½", "①",
         "😀", "👩‍👩‍👧", "🇩🇪", "\u0000", "\u0001", "\ufffd", "\U000e0001", "naïve", "CamelCase", "1,234.56", "0123456789", "w" * 120,
         "<s>", "</s>", "<mask>", " <mask> ", "[MASK]", "[CLS]", "<unk>", "[UN", "K]", "<m", "<new token>", "e5 query: "]


def texts(corpus, count, seed):
    """[first, second or null, max_length] of real texts, edges, and parts thrown together."""
    rng = random.Random(seed)
    made = ["", " ", "   ", "\n", "\t \n", "a", " a", "a ", "\u0301", "中", "w" * 5000, "中" * 3000, "a\n" * 3000, "😀" * 2000,
            " " * 5000 + "end", "word " * 3000, *PARTS]
    made += ["".join(rng.choice(PARTS) for _ in range(rng.randrange(1, 40))) for _ in range(count)]
    made += ["".join(rng.choice(PARTS + ["the", "river ", "over the "] * 9) for _ in range(3000)) for _ in range(count // 40)]
    made += [t[1] if isinstance(t, list) else t for t in corpus[:count // 4]]
    rows = [[text, None, rng.choice([8, 64, 512, 100_000])] for text in made]
    rows += [[rng.choice(made) or "t", rng.choice(made), rng.choice([8, 9, 33, 64, 512])] for _ in range(count // 2)]
    return rows


def template(t, frame, names):
    singles, pairs = {"bert": ("{0} $A {1}", "{0} $A {1} $B:1 {1}:1"), "roberta": ("{0} $A {1}", "{0} $A {1} {1} $B:0 {1}")}[frame]
    t.post_processor = processors.TemplateProcessing(single=singles.format(*names), pair=pairs.format(*names),
                                                     special_tokens=[(n, t.token_to_id(n)) for n in names])
    return t


def word_piece(corpus, special):
    t = Tokenizer(models.WordPiece(unk_token=next(s for s in special if "unk" in s.lower())))
    t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, show_progress=False))
    return t


def bpe(corpus, special, prefix=False, normalizer=None):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def gemma(corpus, special):
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=2500, special_tokens=special + bytes_, show_progress=False))
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return t


def unigram(corpus, work):
    """XLM-R's kind with SentencePiece's own table of characters; pieces in fairseq's order."""
    path = work / "corpus.txt"
    path.write_text("\n".join(corpus), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(input=str(path), model_prefix=str(work / "spm"), vocab_size=1500, minloglevel=2,
                                             character_coverage=0.9995, model_type="unigram", normalization_rule_name="nmt_nfkc")
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto.FromString((work / "spm.model").read_bytes())
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(p.piece, p.score) for p in proto.pieces[3:]] + [("<mask>", 0.0)]
    return pieces, proto.normalizer_spec.precompiled_charsmap


def spm(pieces, normalizer, pre_tokenizer):
    t = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    t.normalizer, t.pre_tokenizer = normalizer, pre_tokenizer
    t.add_special_tokens([*S[:4], AddedToken("<mask>", lstrip=True, special=True)])
    return template(t, "roberta", ["<s>", "</s>"])


def folders(corpus, work):
    """Names and folders: (tokenizer, its special tokens), or None where the folder is already whole; model_type; config."""
    names = lambda special: dict(zip(ROLES, special))

    def folder(name, tokenizer, special, model_type, config=None, keep=("tokenizer.json", "tokenizer_config.json")):
        at = work / name
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names(special)).save_pretrained(at)
        said = json.loads((at / "tokenizer_config.json").read_text())
        said.update(config or {})
        (at / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not ...}))
        (at / "config.json").write_text(json.dumps(dict(model_type=model_type)))
        for file in at.iterdir():
            if file.name not in (*keep, "config.json"):
                file.unlink()
        return name, at

    bert = lambda: template(word_piece(corpus, B), "bert", ["[CLS]", "[SEP]"])
    mpnet_names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    mpnet = lambda: template(word_piece(corpus, mpnet_names), "roberta", ["<s>", "</s>"])
    klass = lambda name, **more: dict(tokenizer_class=name, **more)
    for name, model_type, config in [
        ("bert-class", "bert", klass("BertTokenizerFast")), ("bert-none", "bert", klass(...)), ("bert-as-is", "bert", {}),
        ("bert-types", "bert", dict(model_input_names=["input_ids", "token_type_ids", "attention_mask"])),
        ("bert-cased", "bert", klass("BertTokenizer", do_lower_case=False, tokenize_chinese_chars=False)),
        ("distilbert-class", "distilbert", klass("DistilBertTokenizer")), ("distilbert-none", "distilbert", klass(...)),
        ("modernbert-bert-class", "modernbert", klass("BertTokenizer", do_lower_case=False)),
    ]:
        yield folder(name, bert(), B, model_type, config)
    for name, config in [("mpnet-class", klass("MPNetTokenizer")), ("mpnet-none", klass(...)), ("mpnet-as-is", {}),
                         ("mpnet-cased", klass("MPNetTokenizerFast", do_lower_case=False, strip_accents=True))]:
        yield folder(name, mpnet(), mpnet_names, "mpnet", config)
    at = work / "mpnet-vocab"
    at.mkdir()
    vocabulary = mpnet().get_vocab()
    (at / "vocab.txt").write_text("".join(t + "\n" for t in sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    (at / "config.json").write_text('{"model_type": "mpnet"}')
    (at / "tokenizer_config.json").write_text('{"tokenizer_class": "MPNetTokenizer"}')
    yield "mpnet-vocab", at

    roberta = lambda **more: template(bpe(corpus, S, **more), "roberta", ["<s>", "</s>"])
    for name, tokenizer, model_type, config in [
        ("roberta-class", roberta(), "roberta", klass("RobertaTokenizerFast")), ("roberta-none", roberta(), "roberta", klass(...)),
        ("roberta-prefix", roberta(), "roberta", klass("RobertaTokenizer", add_prefix_space=True)),
        ("roberta-as-is", roberta(prefix=True), "roberta", {}), ("roberta-on-bert", roberta(), "bert", klass("RobertaTokenizer")),
        ("roberta-class-overrides", roberta(prefix=True, normalizer=normalizers.Lowercase()), "roberta", klass("RobertaTokenizer")),
    ]:
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        yield folder(name, tokenizer, S, model_type, config)
    at = work / "roberta-older"
    at.mkdir()
    roberta().model.save(str(at))
    (at / "config.json").write_text('{"model_type": "roberta"}')
    yield "roberta-older", at

    modern = lambda: template(bpe(corpus, B, normalizer=normalizers.NFC()), "bert", ["[CLS]", "[SEP]"])
    t = modern()
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True), "<new token>"])
    yield folder("modernbert", t, B, "modernbert")
    t = template(gemma(corpus, S), "bert", ["<s>", "</s>"])
    yield folder("mmbert", t, S, "modernbert")

    pieces, charsmap = unigram(corpus, work)
    space = pre_tokenizers.Metaspace(prepend_scheme="always")
    both = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
    table = normalizers.Precompiled(charsmap)
    e5 = normalizers.Sequence([table, normalizers.Replace(Regex(" {2,}"), " ")])
    t5 = normalizers.Sequence([table, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
    for name, normalizer, pre, model_type, config in [
        ("xlmr-class", table, both, "xlm-roberta", klass("XLMRobertaTokenizerFast")), ("xlmr-none", e5, space, "xlm-roberta", klass(...)),
        ("xlmr-on-bert", table, both, "bert", klass("XLMRobertaTokenizer")), ("xlmr-as-is", e5, space, "xlm-roberta", {}),
        ("xlmr-t5", t5, space, "bert", {}), ("xlmr-words", table, both, "bert", {}),
        ("xlmr-first", e5, pre_tokenizers.Metaspace(prepend_scheme="first"), "bert", {}),
        ("xlmr-never", e5, pre_tokenizers.Metaspace(prepend_scheme="never"), "bert", {}),
        ("xlmr-nfkc", normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace("  ", " ")]), space, "bert", {}),
        ("xlmr-class-prefix", table, both, "xlm-roberta", klass("XLMRobertaTokenizer", add_prefix_space=False)),
    ]:
        yield folder(name, spm(pieces, normalizer, pre), S, model_type, config)


def ours(program, folder, rows, save_to=None):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    command = [program, str(folder), *([str(save_to)] if save_to else [])]
    done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def theirs(folder, rows):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for first, second, max_length in rows:
        # An empty title leaves a single text. A list, since of one pair transformers drops an empty second text.
        texts = [[first or second]] if second is None or first == "" else [[first], [second]]
        made = {name: value[0] for name, value in tokenizer(*texts, truncation="longest_first", max_length=max_length).items()}
        ids = made["input_ids"]
        types = made.get("token_type_ids", [0] * len(ids))
        yield [ids, types.index(1) if 1 in types else len(ids)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", help="the example `tokens` of contaccum-encoder")
    ap.add_argument("folders", nargs="*", help="further model folders")
    ap.add_argument("--corpus", required=True, help="BEIR corpus.jsonl to train on")
    ap.add_argument("--texts", type=int, default=600, help="random texts (default %(default)s)")
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    read = read_texts(args.corpus, 2000)[1]
    corpus = [" ".join(t) if isinstance(t, list) else t for t in read] + ["".join(PARTS), "中国 東京 한국어 हिन्दी العربية"] * 30
    rows = texts(read, args.texts, args.seed)
    differing, checked = {}, 0
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for name, folder in [*folders(corpus, work), *((f, pathlib.Path(f)) for f in args.folders)]:
            again = work / "again"
            shutil.rmtree(again, ignore_errors=True)
            expected = list(theirs(folder, rows))
            for kind, at, save_to in (("read", folder, again), ("saved", again, None)):
                got = ours(args.program, at, rows, save_to)
                if save_to:
                    shutil.copy(folder / "config.json", again)
                if kind == "saved" and list(theirs(again, rows)) != expected:
                    differing[name] = "transformers reads the saved folder otherwise"
                wrong = [(row, e, g) for row, e, g in zip(rows, expected, got) if e != g]
                checked += len(rows)
                if wrong:
                    row, e, g = min(wrong, key=lambda one: len(one[0][0]))
                    differing[f"{name} {kind}"] = f"{len(wrong)}: {row!r:.300} {e!r:.200} {g!r:.200}"
            print(name, "differs" if any(name in d for d in differing) else "equal", file=sys.stderr)
    report(checked=checked, differing=differing, passed=not differing)
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
