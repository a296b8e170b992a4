"""Fusion of the hits of several searches into one list."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.ports.index import Hit


def fused(found: Sequence[Sequence[Hit]], top_k: int | None = None) -> list[Hit]:
    """The best hits of searches whose scores do not compare (all without a `top_k`): by rank, equals by score."""
    if len(found) == 1:
        return list(found[0][:top_k])
    ranked = [(rank, -hit.score, hit.id, hit.dataset, hit) for hits in found for rank, hit in enumerate(hits)]
    return [hit for *_, hit in sorted(ranked, key=lambda item: item[:4])[:top_k]]
