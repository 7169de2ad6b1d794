#!/usr/bin/env python3
"""faiss's time and memory for exact search (IndexFlatIP): workload W5.

    search.py --passages index --queries questions

Both are folders of `contaccum encode` or .npy files. Adding to the index copies the vectors and is timed apart.
"""
import argparse
import faiss, numpy as np
from common import Clock, read_vectors, report


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--passages", required=True)
    ap.add_argument("--queries", required=True)
    ap.add_argument("--top", type=int, default=100)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeats", type=int, default=3, help="searches; the median is told (default %(default)s)")
    args = ap.parse_args()

    faiss.omp_set_num_threads(args.threads)
    passages, queries = (np.ascontiguousarray(read_vectors(path)[1], dtype=np.float32)
                         for path in (args.passages, args.queries))
    adding, searching = Clock(), Clock()
    index = faiss.IndexFlatIP(passages.shape[1])
    with adding:
        index.add(passages)
    for _ in range(args.repeats):
        with searching:
            scores, _ = index.search(queries, args.top)
    report(peer=f"faiss {faiss.__version__}", threads=args.threads, passages=len(passages), queries=len(queries),
           top=args.top, **adding.medians("add_seconds"), **searching.medians("search_seconds"),
           mean_best_score=float(scores[:, 0].mean()), mean_last_score=float(scores[:, -1].mean()))


if __name__ == "__main__":
    main()
