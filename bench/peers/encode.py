#!/usr/bin/env python3
"""sentence-transformers' time and memory for encoding passages: workload W4.

    encode.py MODEL --corpus DATA/squad/corpus.jsonl

Passages go in as [title, text] pairs; `encode` sorts them by length itself. Reading and loading are not timed.
"""
import argparse
import sentence_transformers, torch
from common import Clock, read_texts, report


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--corpus", required=True, help="BEIR corpus.jsonl")
    ap.add_argument("--passages", type=int, default=4000, help="the first so many (default %(default)s)")
    ap.add_argument("--batch-size", type=int, default=32, help="default %(default)s, as in sentence-transformers")
    ap.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    ap.add_argument("--threads", type=int, default=2)
    args = ap.parse_args()

    torch.set_num_threads(args.threads)
    model = sentence_transformers.SentenceTransformer(
        args.model, device="cpu", model_kwargs={"dtype": torch.bfloat16} if args.dtype == "bf16" else {})
    _, texts = read_texts(args.corpus, args.passages)
    encode = lambda part: model.encode(part, batch_size=args.batch_size, show_progress_bar=False)
    encode(texts[:args.batch_size])
    clock = Clock()
    with clock:
        vectors = encode(texts)
    report(peer=f"sentence-transformers {sentence_transformers.__version__}", threads=args.threads,
           passages=len(vectors), **clock.medians("seconds"), passages_per_second=len(vectors) / clock.wall[0])


if __name__ == "__main__":
    main()
