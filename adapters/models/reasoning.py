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

LONE = "</think>"
"""The end of reasoning that a template has begun."""

_BEGINNING = "<think>"

LONGEST = 200
"""Maximum number of characters that are held back while they may begin with a mark."""


class Splitter:
    """Splits an answer that comes in pieces into text and reasoning.

    Marks count only before the first word of the answer, so that an answer may speak of them. Reasoning without an end
    is reasoning. Where a template has begun the reasoning, only its end arrives, at the beginning of a line: all text
    until then was reasoning, and `unsaid` is set.
    """

    def __init__(self) -> None:
        self._held = ""
        self._end: str | None = None
        self._reasoned = self._answers = False
        self.unsaid = False
        self._line_is_blank = True
        self._before = ""

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the text and the reasoning that are certain so far."""
        if self._answers and self._reasoned:
            return piece, ""
        self._held += piece
        reasoning = ""
        while not self._answers:
            if self._end:
                before, mark, after = self._held.partition(self._end)
                if not mark:
                    kept = overlap(self._held, self._end)
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
        if self._reasoned:
            return self._rest(), reasoning
        return self._text()

    def _text(self) -> tuple[str, str]:
        """The text of an answer that has begun without reasoning, unless the end of reasoning is in it."""
        held = self._held
        if (at := held.find(LONE)) >= 0:
            line = held[held.rfind("\n", 0, at) + 1 : at]
            blank = not line.strip() and ("\n" in held[:at] or self._line_is_blank)
            self._reasoned = True
            if blank and _BEGINNING not in self._before + held[:at]:
                self.unsaid, self._answers, self._held = True, False, held[at + len(LONE) :]
                text, more = self.feed("")
                return text, held[:at] + more
            return self._rest(stripped=False), ""
        kept = overlap(held, LONE)
        text, self._held = held[: len(held) - kept], held[len(held) - kept :]
        if text:
            line = text.rpartition("\n")[2]
            self._line_is_blank = not line.strip() and (len(line) < len(text) or self._line_is_blank)
            if _BEGINNING in (seen := self._before + text):
                self._before = _BEGINNING
            else:
                self._before = seen[-len(_BEGINNING) :]
        return text, ""

    def end(self) -> tuple[str, str]:
        """The text and the reasoning that were held back."""
        if self._end:
            held, self._held = self._held, ""
            return "", held
        return self._rest(stripped=self._reasoned and not self._answers), ""

    def _rest(self, *, stripped: bool = True) -> str:
        held, self._held = self._held, ""
        return held.lstrip() if stripped else held


def overlap(text: str, mark: str) -> int:
    """The number of characters at the end of a text that may begin the mark."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
