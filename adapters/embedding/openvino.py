"""A SentenceTransformer compiled by OpenVINO, for processors; it needs the extra `openvino`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

_PRECISIONS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def compiled(modules: Any, dtype: str, lanes: int) -> Callable[[Any, Any], Any]:
    """A function from a batch of token ids, shape (rows, width), and the lengths of its rows, None where all have this
    width, to vectors, shape (rows, dimension): all torch tensors in memory.

    In addition to the `lanes`, there is a thread for one question at a time. Raises: ImportError.
    """
    import torch

    # Without this package, which it installs, it sends no telemetry about conversions.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise ImportError("OpenVINO is not installed: pip install 'headrace[openvino]'.") from None

    class Whole(torch.nn.Module):  # type: ignore[misc]
        """All modules in one, for tracing."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer = modules[0]
            self.others = torch.nn.ModuleList(list(modules)[1:])

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = self.transformer({"input_ids": input_ids, "attention_mask": attention_mask})
            for module in self.others:
                features = module(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=1)

    example = torch.ones((2, 8), dtype=torch.int32), torch.ones((2, 8), dtype=torch.int64)
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        exported = torch.export.export(Whole().eval(), example, dynamic_shapes=(shape, shape))
    model = openvino.Core().compile_model(
        openvino.convert_model(exported),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
            "INFERENCE_NUM_THREADS": lanes + 1,
            "NUM_STREAMS": lanes + 1,
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = threading.local()

    def forward(ids: Any, lengths: Any) -> Any:
        if not hasattr(request, "of_this_thread"):
            request.of_this_thread = model.create_infer_request()
        if lengths is None:
            mask = torch.ones(ids.shape, dtype=torch.int64)
        else:
            mask = (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
        found = request.of_this_thread.infer([ids.numpy(), mask.numpy()], share_inputs=True)
        return torch.from_numpy(found[0])

    return forward
