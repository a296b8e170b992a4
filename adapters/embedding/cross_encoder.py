"""A loaded cross-encoder: a model that reads a query and a text together, and scores how well they match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from adapters.embedding.engine import BATCH, best_dtype
from adapters.embedding.library import lean_imports
from adapters.model_files import find_model, model_name


class Scored(NamedTuple):
    """A score from 0 to 1 for each text, and the total number of tokens that were read."""

    scores: list[float]
    tokens: int


class CrossEncoderEngine:
    """A model loaded from its folder; `dtype` and `device` are `auto`, or names of torch.

    `identity` is model, backend and number type. Raises: FileNotFoundError; ValueError for a model with more than one
    number per text.
    """

    def __init__(self, model: str, *, dtype: str = "auto", device: str = "auto", batch: int | None = None) -> None:
        import torch

        folder = find_model(model)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        dtype = best_dtype(device) if dtype == "auto" else dtype
        self.name = model_name(model)
        self.identity = f"{self.name}/torch/{dtype}"
        self.batch = batch or BATCH["cuda" if device.startswith("cuda") else "cpu"]
        self._torch = torch
        self._device = torch.device(device)
        with lean_imports():
            from sentence_transformers import CrossEncoder

            model_kwargs = {"dtype": getattr(torch, dtype)}
            loaded = CrossEncoder(str(folder), device=device, local_files_only=True, model_kwargs=model_kwargs)
        self._model: Any = loaded.eval()
        if self._model.num_labels != 1:
            raise ValueError(f"{self.name} gives {self._model.num_labels} numbers for a text; a reranker gives one.")
        # The last step uses full precision: else many of the best would have equal scores.
        for module in self._model.modules():
            if isinstance(module, torch.nn.Linear) and module.out_features == 1:
                module.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))

    def score(self, query: str, texts: Sequence[str]) -> Scored:
        """Score the texts; input beyond the model's limit is truncated."""
        if not texts:
            return Scored([], 0)
        torch = self._torch
        with torch.inference_mode():
            features = self._model.preprocess([(query, text) for text in texts])
            lengths: npt.NDArray[np.int64] = features["attention_mask"].sum(dim=1).numpy()
            scores = torch.empty(len(texts))
            for rows in self._batches(lengths):
                found = self._model(self._part(features, rows))["scores"].float().sigmoid()
                scores[rows] = found.reshape(len(rows)).cpu()
        return Scored(scores.tolist(), int(lengths.sum()))

    def _batches(self, lengths: npt.NDArray[np.int64]) -> Iterator[list[int]]:
        """The rows, longest first, in batches of at most `tokens` tokens after padding."""
        order = np.argsort(-lengths, kind="stable").tolist()
        while order:
            count = max(1, self.batch // int(lengths[order[0]]))
            yield order[:count]
            order = order[count:]

    def _part(self, features: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        """These rows, without columns that are padding in all of them, on either side."""
        used = features["attention_mask"][rows].any(dim=0)
        return {
            name: value[rows][:, used].to(self._device) if hasattr(value, "shape") else value
            for name, value in features.items()
        }
