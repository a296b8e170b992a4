"""Linear layers whose weights are laid out once for the processor's bfloat16 multiplication."""

from __future__ import annotations

from typing import Any


def pack(module: Any) -> None:
    """Replace the linear layers of a torch module, in bfloat16 on a processor, by packed ones.

    Torch otherwise lays out the weights in every call, which takes a third of the time of a short text. The results are
    the same bit by bit.
    """
    import torch

    operators: Any = torch.ops.mkldnn

    class Packed(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.weights = operators._reorder_linear_weight(linear.weight.detach(), None)
            self.bias = None if linear.bias is None else linear.bias.detach()

        def forward(self, features: Any) -> Any:
            return operators._linear_pointwise(features, self.weights, self.bias, "none", [], "")

    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, Packed(child))
