#!/usr/bin/env python3
"""A model folder of random weights in the base shape of a family, for timing alone (no tokenizer).

    random_model.py modernbert OUT
    random_model.py mpnet OUT

Shapes are those of transformers' own defaults: 22 layers of 768 (modernbert), 12 of 768 (mpnet).
"""
import argparse
import torch
from transformers import AutoConfig, AutoModel


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("family", help="a model_type of transformers")
    ap.add_argument("out")
    args = ap.parse_args()
    torch.manual_seed(1)
    AutoModel.from_config(AutoConfig.for_model(args.family)).save_pretrained(args.out)


if __name__ == "__main__":
    main()
