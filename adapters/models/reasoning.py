"""Reasoning that a model writes between marks at the beginning of its answer."""

from __future__ import annotations

MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}
"""The end of reasoning by its beginning."""

LONGEST = 200
"""Maximum number of characters that are held back while they may begin with a mark."""


class Splitter:
    """Splits an answer that comes in pieces into text and reasoning.

    Marks count only before the first word of the answer, so that an answer may speak of them. Reasoning without an end
    is reasoning.
    """

    def __init__(self) -> None:
        self._held = ""
        self._end: str | None = None
        self._reasoned = self._answers = False

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the text and the reasoning that are certain so far."""
        if self._answers:
            return piece, ""
        self._held += piece
        reasoning = ""
        while not self._answers:
            if self._end:
                before, mark, after = self._held.partition(self._end)
                if not mark:
                    kept = _overlap(self._held, self._end)
                    reasoning += self._held[: len(self._held) - kept]
                    self._held = self._held[len(self._held) - kept :]
                    return "", reasoning
                reasoning += before
                self._held, self._end, self._reasoned = after, None, True
            start = self._held.lstrip()
            if found := next((mark for mark in MARKS if start.startswith(mark)), None):
                self._held, self._end = start[len(found) :], MARKS[found]
            elif len(self._held) < LONGEST and any(mark.startswith(start) for mark in MARKS):
                return "", reasoning
            else:
                self._answers = True
        return self._rest(), reasoning

    def end(self) -> tuple[str, str]:
        """The text and the reasoning that were held back."""
        if self._end:
            held, self._held = self._held, ""
            return "", held
        return self._rest(), ""

    def _rest(self) -> str:
        held, self._held = self._held, ""
        return held.lstrip() if self._reasoned else held


def _overlap(text: str, mark: str) -> int:
    """The number of characters at the end of a text that may begin the mark."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
