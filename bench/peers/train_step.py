#!/usr/bin/env python3
"""PyTorch's time and memory for one training step: workloads W1, W2, MPNet, ModernBERT (--model) and W3 (--bert-base).

    train_step.py w1.safetensors --model MODEL
    train_step.py w1.safetensors --bert-base

transformers' model with the attention that it chooses (SDPA; eager for MPNet, which has no other), two encoders,
dropout on, mean pooling, cosine / 0.05, InfoNCE over positives and hard negatives, clipping at 2.0, fused AdamW.
Batches are padded to their longest sequence. `pack.py` makes the token file. Prints one line of JSON.
"""
import argparse
from contextlib import nullcontext
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, BertConfig, BertModel
from common import Clock, report


def padded(tensors, step, side):
    """The packed sequences of one side of a step as a padded batch."""
    ids, types, offsets = (tensors[f"{step}.{side}.{key}"].long() for key in ("ids", "types", "offsets"))
    lengths = offsets.diff()
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    batch = {name: torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, values)
             for name, values in (("input_ids", ids), ("token_type_ids", types))}
    return {**batch, "attention_mask": mask.long()}


def encode(encoder, batch):
    mask = batch["attention_mask"].unsqueeze(-1)
    known = {name: values for name, values in batch.items()
             if name != "token_type_ids" or getattr(encoder.config, "type_vocab_size", 0) > 1}
    hidden = encoder(**known).last_hidden_state
    return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def update(loss, weights, optimizer):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 2.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tokens", help="file of pack.py")
    shape = ap.add_mutually_exclusive_group(required=True)
    shape.add_argument("--model", help="folder of a model, of random_model.py for instance")
    shape.add_argument("--bert-base", action="store_true", help="12 layers of 768, random weights")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--warmup", type=int, default=2, help="steps before timing (default %(default)s)")
    ap.add_argument("--steps", type=int, help="timed steps (default: all others in the file)")
    args = ap.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    load = ((lambda: BertModel(BertConfig(attn_implementation="sdpa"), add_pooling_layer=False)) if args.bert_base else
            (lambda: AutoModel.from_pretrained(args.model, dtype=torch.float32)))
    encoders = {"query": load().train(), "passage": load().train()}
    for encoder in encoders.values():      # computed and never used
        encoder.pooler = None
    weights = [w for encoder in encoders.values() for w in encoder.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-5, weight_decay=0.0, fused=True)
    tensors = load_file(args.tokens)
    packed_steps = len({name.split(".")[0] for name in tensors})

    clock = Clock()
    for step in range(args.warmup + (args.steps or packed_steps - args.warmup)):
        with clock if step >= args.warmup else nullcontext():
            vectors = {side: encode(encoder, padded(tensors, step % packed_steps, side))
                       for side, encoder in encoders.items()}
            logits = vectors["query"] @ vectors["passage"].T / 0.05
            loss = cross_entropy(logits, torch.arange(len(logits)))
            update(loss, weights, optimizer)
    report(peer=f"torch {torch.__version__}", threads=args.threads, steps=len(clock.wall),
           **clock.medians("seconds_per_step"), seconds=[round(s, 4) for s in clock.wall], last_loss=loss.item())


if __name__ == "__main__":
    main()
