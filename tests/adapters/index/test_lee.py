"""The shipped model and what people think: the set of Lee, Pincombe and Welsh, 50 short texts of news, every pair of
which people judged by how similar they are. It comes with gensim's own tests."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from adapters.embedding.engine import Engine
from adapters.segmenting.segmenter import TokenSegmenter

LEAST = 0.60


pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="gensim has no wheel for this Python yet")


@pytest.fixture(scope="module")
def folder() -> Path:
    found = find_spec("gensim")
    assert found
    assert found.origin
    return Path(found.origin).parent / "test" / "test_data"


def test_texts_are_near_each_other_as_people_find_them_similar(folder: Path) -> None:
    texts = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
    judged = np.loadtxt(folder / "similarities0-1.txt")
    assert len(texts) == 50
    assert judged.shape == (50, 50)
    segmenter = TokenSegmenter()
    vectors = Engine(device="cpu").encode([segmenter.tokenize(text) for text in texts])
    pairs = np.triu_indices(50, k=1)
    pearson = np.corrcoef((vectors @ vectors.T)[pairs], judged[pairs])[0, 1]
    assert pearson >= LEAST
