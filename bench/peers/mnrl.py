#!/usr/bin/env python3
"""sentence-transformers' time and memory for one training step with its own losses: workloads MNRL and CachedMNRL.

    mnrl.py w1.safetensors --model MODEL [--mini-batch 4]

`MultipleNegativesRankingLoss`, or with --mini-batch `CachedMultipleNegativesRankingLoss`: one encoder, dropout on,
cosine / 0.05, InfoNCE over positives and hard negatives, clipping at 2.0, fused AdamW. Anchors, positives and
negatives are each padded to their longest, as its collator does. Prints one line of JSON.
"""
import argparse
from contextlib import nullcontext
import sentence_transformers, torch
from safetensors.torch import load_file
from sentence_transformers.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from common import Clock, report
from train_step import padded, update


def columns(tensors, step):
    """Anchors, positives and negatives of a step, each a padded batch."""
    anchors, passages = padded(tensors, step, "query"), padded(tensors, step, "passage")
    rows = len(anchors["input_ids"])
    parts = [{name: values[part] for name, values in passages.items()} for part in (slice(rows), slice(rows, None))]
    longest = lambda part: int(part["attention_mask"].sum(1).max())
    return [anchors] + [{name: values[:, :longest(part)] for name, values in part.items()} for part in parts]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tokens", help="file of pack.py")
    ap.add_argument("--model", required=True, help="folder of a sentence-transformers model")
    ap.add_argument("--mini-batch", type=int, help="rows a pass of the cached loss")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--warmup", type=int, default=2, help="steps before timing (default %(default)s)")
    args = ap.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    model = sentence_transformers.SentenceTransformer(args.model, device="cpu").train()
    loss_of = (CachedMultipleNegativesRankingLoss(model, mini_batch_size=args.mini_batch) if args.mini_batch else
               MultipleNegativesRankingLoss(model))
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-5, weight_decay=0.0, fused=True)
    tensors = load_file(args.tokens)

    clock = Clock()
    for step in range(len({name.split(".")[0] for name in tensors})):
        with clock if step >= args.warmup else nullcontext():
            loss = loss_of(columns(tensors, step), None)
            update(loss, weights, optimizer)
    report(peer=f"sentence-transformers {sentence_transformers.__version__}", threads=args.threads, steps=len(clock.wall),
           **clock.medians("seconds_per_step"), last_loss=loss.item())


if __name__ == "__main__":
    main()
