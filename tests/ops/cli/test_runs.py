"""`headrace run show`: the steps of a run as a tree."""

from __future__ import annotations

from typing import Any

from ops.cli.runs import tree


def row(step: str, status: str = "succeeded", **more: Any) -> dict[str, Any]:
    of = {"step": step, "node_type": "code", "title": step.rpartition("/")[2], "status": status, "tries": 1}
    return {**of, "kept": False, "total_tokens": 0, "elapsed_time": 0.5, "error": None, **more}


def test_steps_of_items_are_below_their_container() -> None:
    steps = [
        row("start", kept=True),
        row("each/0/clean"),
        row("each/10/clean", "failed", error="It is odd.", tries=3),
        row("each/2/loop/0/deep", "running", elapsed_time=None),
        row("each/2/loop"),
        row("each", "exception"),
        row("no", "skipped", elapsed_time=0.0),
    ]
    assert list(tree(steps)) == [
        "succeeded  start (code) 0.500 s, kept",
        "exception  each (code) 0.500 s",
        "  [0]",
        "    succeeded  clean (code) 0.500 s",
        "  [2]",
        "    succeeded  loop (code) 0.500 s",
        "      [0]",
        "        running    deep (code)",
        "  [10]",
        "    failed     clean (code) 0.500 s, 3 tries: It is odd.",
        "skipped    no (code)",
    ]


def test_a_run_without_steps_has_no_tree() -> None:
    assert list(tree([])) == []
