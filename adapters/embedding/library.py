"""Imports sentence-transformers without packages that computing vectors does not need: 160 MB less in the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

from adapters.imports import replaced

UNUSED = ("scipy", "sklearn")
"""Packages for training, evaluation and sparse vectors."""

COMPILER = "triton"
"""The package that compiles for GPUs, which torch loads in case it should."""

_BY_NAME = {"scipy.sparse": "coo_matrix", "sklearn.metrics": "pairwise_distances"}
"""Function by module: sentence-transformers always imports them, and calls them for sparse vectors."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """A context in which sentence-transformers and transformers import none of these packages, and draw no bars."""
    import torch

    names = UNUSED if torch.cuda.is_available() else (*UNUSED, COMPILER)
    stand_ins = {module: _stand_in(module, name) for module, name in _BY_NAME.items()}
    with replaced(dict.fromkeys(names) | stand_ins):
        from transformers.utils import logging

        logging.disable_progress_bar()
        yield


def _stand_in(module: str, name: str) -> ModuleType:
    def missing(*_: object, **__: object) -> NoReturn:
        raise ImportError(f"{module}.{name} is left out of this process.")

    made = ModuleType(module)
    setattr(made, name, missing)
    return made
