"""The import of sentence-transformers without packages that computing vectors does not use: it takes 160 MB less."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import ModuleType
from typing import NoReturn

from adapters.imports import replaced

UNUSED = ("scipy", "sklearn")
"""Packages for training, evaluation and sparse vectors."""

COMPILER = "triton"
"""The package that compiles for GPUs, which torch loads in case it should."""

_BY_NAME = {"scipy.sparse": "coo_matrix", "sklearn.metrics": "pairwise_distances"}
"""Function by module: sentence-transformers always imports them, and calls them for sparse vectors."""


def lean_imports() -> AbstractContextManager[None]:
    """A context in which sentence-transformers and transformers import neither of these packages."""
    import torch

    names = UNUSED if torch.cuda.is_available() else (*UNUSED, COMPILER)
    return replaced(dict.fromkeys(names) | {module: _stand_in(module, name) for module, name in _BY_NAME.items()})


def _stand_in(module: str, name: str) -> ModuleType:
    def missing(*_: object, **__: object) -> NoReturn:
        raise ImportError(f"{module}.{name} is left out of this process.")

    made = ModuleType(module)
    setattr(made, name, missing)
    return made
