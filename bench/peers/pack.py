#!/usr/bin/env python3
"""Packed token ids of SQuAD rows, to be read by both sides of a comparison.

    pack.py w1.safetensors --squad DATA/squad --model MODEL               # W1, W3: random rows
    pack.py w2.safetensors --squad DATA/squad --model MODEL --equal 32 160  # W2: all of one length

Tensors of step S (from 0), side `query` or `passage`, all int32, sequences back to back without padding:
    S.side.ids, S.side.types      [tokens]         token ids and token types
    S.side.offsets                [sequences + 1]  cumulative lengths
The passages of a step are the positives of its queries, in their order, then one hard negative each.
"""
import argparse, json, pathlib, random
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from common import read_texts


def pack(encodings):
    lengths = [len(e.ids) for e in encodings]
    return {"ids": np.array([i for e in encodings for i in e.ids], dtype=np.int32),
            "types": np.array([t for e in encodings for t in e.type_ids], dtype=np.int32),
            "offsets": np.cumsum([0] + lengths, dtype=np.int32)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--squad", type=pathlib.Path, required=True, help="the SQuAD folder in BEIR layout")
    ap.add_argument("--model", type=pathlib.Path, required=True, help="folder with tokenizer.json")
    ap.add_argument("--steps", type=int, default=16)
    ap.add_argument("--queries", type=int, default=8, help="queries of a step (default %(default)s)")
    ap.add_argument("--equal", type=int, nargs=2, metavar=("QUERY", "PASSAGE"),
                    help="one length for all, by repetition (default: as the texts are, at most 64 and 256)")
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()

    passages = dict(zip(*read_texts(args.squad / "corpus.jsonl")))
    queries = dict(zip(*read_texts(args.squad / "queries.jsonl")))
    with open(args.squad / "derived" / "train.bm25_hardneg.tsv", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][1:]
    rows = random.Random(args.seed).sample([row for row in rows if row[2]], args.steps * args.queries)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()

    def encode(texts, longest):
        tokenizer.enable_truncation(longest, strategy="longest_first")
        if args.equal:                     # long enough for the truncation to decide
            texts = [[t[0], " ".join([t[1]] * 40)] if isinstance(t, list) else " ".join([t] * 40) for t in texts]
        return tokenizer.encode_batch(texts)

    longest_query, longest_passage = args.equal or (64, 256)
    tensors = {}
    for step in range(args.steps):
        batch = rows[step * args.queries:(step + 1) * args.queries]
        sides = {"query": encode([queries[q] for q, _, _ in batch], longest_query),
                 "passage": encode([passages[g] for _, g, _ in batch]
                                   + [passages[n.split(",")[0]] for _, _, n in batch], longest_passage)}
        for side, encodings in sides.items():
            tensors.update({f"{step}.{side}.{key}": value for key, value in pack(encodings).items()})
    save_file(tensors, args.out)
    print(json.dumps({"steps": args.steps, "tokens_per_step":
                      sum(len(t) for name, t in tensors.items() if name.endswith(".ids")) / args.steps}))


if __name__ == "__main__":
    main()
