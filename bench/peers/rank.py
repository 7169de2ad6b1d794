#!/usr/bin/env python3
"""sentence-transformers' ranking of a BEIR folder as a TREC run, to be measured by `contaccum evaluate`.

    rank.py MODEL --data scifact --output peer.trec
    contaccum evaluate --run peer.trec --qrels scifact/qrels/test.tsv

Passages go in as [title, text] pairs; vectors are compared by dot product, so the model normalises them where it should.
"""
import argparse, pathlib
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from common import read_texts


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--data", type=pathlib.Path, required=True, help="BEIR folder")
    ap.add_argument("--split", default="test")
    ap.add_argument("--max-length", type=int, help="tokens (default: what the model records)")
    ap.add_argument("--top", type=int, default=100)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--output", required=True)
    args = ap.parse_args()

    torch.set_num_threads(args.threads)
    model = SentenceTransformer(args.model, device="cpu")
    model.max_seq_length = args.max_length or model.max_seq_length
    judged = {line.split("\t")[0] for line in (args.data / "qrels" / f"{args.split}.tsv").read_text().splitlines()[1:]}
    queries = [(id, text) for id, text in zip(*read_texts(args.data / "queries.jsonl")) if id in judged]
    ids, texts = read_texts(args.data / "corpus.jsonl")
    passages = model.encode_document(texts, show_progress_bar=False)
    scores = model.encode_query([text for _, text in queries], show_progress_bar=False) @ passages.T
    with open(args.output, "w", encoding="utf-8") as run:
        for (query, _), row in zip(queries, scores):
            for rank, passage in enumerate(np.argsort(-row)[:args.top], 1):
                run.write(f"{query} Q0 {ids[passage]} {rank} {row[passage]:.8f} sentence-transformers\n")


if __name__ == "__main__":
    main()
