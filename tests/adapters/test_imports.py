from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest

from adapters.embedding.library import _stand_in
from adapters.imports import replaced


def test_a_package_is_missing_within_the_context_alone() -> None:
    assert "this" not in sys.modules
    with replaced({"this": None}), pytest.raises(ModuleNotFoundError):
        import_module("this")
    assert "this" not in sys.modules


def test_a_module_takes_the_place_of_one_that_is_not_loaded() -> None:
    other = ModuleType("this")
    with replaced({"this": other}):
        assert import_module("this") is other
    assert "this" not in sys.modules


def test_a_loaded_package_stays() -> None:
    with replaced({"json": None}):
        assert import_module("json") is sys.modules["json"] is not None


def test_a_function_that_is_left_out_says_so() -> None:
    with pytest.raises(ImportError, match=r"scipy\.sparse\.coo_matrix is left out"):
        _stand_in("scipy.sparse", "coo_matrix").coo_matrix((1, 1), shape=(1, 1))
