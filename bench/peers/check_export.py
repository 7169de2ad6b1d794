#!/usr/bin/env python3
"""Does an exported folder give the same vectors in sentence-transformers as in contaccum?

    contaccum encode --model MODEL --corpus DATA --output index
    check_export.py MODEL --texts DATA/corpus.jsonl --vectors index

Passages with a title go to sentence-transformers as [title, text] pairs. Compared are the rows whose token ids agree
with plain `longest_first` truncation of the pair at the folder's max_seq_length, which is what contaccum does; rows
that sentence-transformers cuts otherwise are counted. Exits 1 when the smallest cosine is below --least.
"""
import argparse, sys
import numpy as np
from sentence_transformers import SentenceTransformer
from common import read_texts, read_vectors, report


def same_tokens(model, texts, prompt):
    """For each text: whether sentence-transformers makes the tokens, and token types if there are any, that contaccum makes."""
    theirs = model.preprocess(texts, prompt=prompt or None)
    pairs = [text if isinstance(text, list) else [text] for text in texts]
    pairs = [[prompt + pair[0], *pair[1:]] for pair in pairs]
    cut = dict(truncation="longest_first", max_length=model.max_seq_length)
    plain = [model.tokenizer(*pair, **cut) for pair in pairs]
    keys = [key for key in ("input_ids", "token_type_ids") if key in theirs or key in plain[0]]
    real = theirs["attention_mask"].bool()
    return [all(theirs[key][i][real[i]].tolist() == tokens[key] for key in keys) for i, tokens in enumerate(plain)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", help="exported sentence-transformers folder")
    ap.add_argument("--texts", required=True, help="BEIR corpus.jsonl or queries.jsonl")
    ap.add_argument("--vectors", required=True, help="folder of `contaccum encode`, or .npy in the order of the texts")
    ap.add_argument("--prompt-name", help="prompt of the folder to put before each text (query, passage)")
    ap.add_argument("--limit", type=int, help="only the first so many texts")
    ap.add_argument("--least", type=float, default=0.99999, help="smallest cosine that passes (default %(default)s)")
    args = ap.parse_args()

    model = SentenceTransformer(args.folder, device="cpu")
    prompt = model.prompts[args.prompt_name] if args.prompt_name else ""
    ids, texts = read_texts(args.texts, args.limit)
    vector_ids, ours = read_vectors(args.vectors)
    if vector_ids is not None:
        row = {name: i for i, name in enumerate(vector_ids)}
        kept = [i for i, name in enumerate(ids) if name in row]
        ours, texts, ids = ours[[row[ids[i]] for i in kept]], [texts[i] for i in kept], [ids[i] for i in kept]
    ours = ours[:len(texts)].astype(np.float64)
    if not texts or len(ours) != len(texts):
        raise SystemExit(f"{len(texts)} texts and {len(ours)} vectors: not the same set")

    # Pairs and single texts are encoded apart: a list of both is not one kind of input.
    theirs, same = np.zeros_like(ours), np.zeros(len(texts), dtype=bool)
    for kind in (list, str):
        rows = [i for i, text in enumerate(texts) if isinstance(text, kind)]
        chosen = [texts[i] for i in rows]
        if rows:
            theirs[rows] = model.encode(chosen, prompt=prompt or None, show_progress_bar=False)
            same[rows] = [ok for i in range(0, len(rows), 64) for ok in same_tokens(model, chosen[i:i + 64], prompt)]
    if not same.any():
        raise SystemExit("sentence-transformers tokenises every text otherwise: nothing to compare")

    lengths, their_lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    cosine = (ours * theirs).sum(1) / (lengths * their_lengths)
    cosine = np.where(same, np.nan_to_num(cosine, nan=-1.0), np.inf)
    worst = int(cosine.argmin())
    passed = bool(cosine[worst] >= args.least)
    report(texts=len(texts), compared=int(same.sum()), tokenised_otherwise=int((~same).sum()),
           smallest_cosine=float(cosine[worst]), at=ids[worst],
           largest_length_difference=float(np.abs(lengths / their_lengths - 1)[same].max()), passed=passed)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
