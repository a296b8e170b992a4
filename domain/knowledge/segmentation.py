"""The rules for splitting texts into segments, of a knowledge base or of one of its documents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Mode = Literal["automatic", "custom", "parent_child", "question_answer"]
Cleanup = Literal["remove_extra_spaces", "remove_urls_emails"]
ParentKind = Literal["paragraph", "full_document"]

MOST_TOKENS = 254
"""Maximum tokens of an embedded segment, without special tokens: the limit of the smallest models in use."""

LEAST_TOKENS = 16
"""Smallest limit of a segment, in tokens."""

SEPARATOR = "\n\n"
"""Ends a paragraph."""

LONGEST_SEPARATOR = 64
"""Maximum characters of a separator."""

PARENT_TOKENS = 1000
MOST_PARENT_TOKENS = 8000
"""Default and maximum tokens of a parent, which is given to the model and never embedded."""

FORMS = {"automatic": "text_model", "custom": "text_model"} | {
    "parent_child": "hierarchical_model",
    "question_answer": "qa_model",
}
"""The name of each mode's documents in the tables."""


def _separates(name: str, separator: str | None) -> None:
    if separator is not None and not 1 <= len(separator) <= LONGEST_SEPARATOR:
        raise ValueError(f"{name} must have 1 to {LONGEST_SEPARATOR} characters, or be null")


@dataclass(frozen=True, slots=True)
class Parent:
    """The text given to the model in place of a small segment that was found.

    Kind `paragraph` ends at each `separator`; with None it holds as many paragraphs under one heading as fit. Kind
    `full_document` is the whole text. A text longer than `max_tokens` becomes several parents.
    """

    kind: ParentKind = "paragraph"
    separator: str | None = None
    max_tokens: int = PARENT_TOKENS

    def __post_init__(self) -> None:
        _separates("parent.separator", self.separator)
        if not LEAST_TOKENS <= self.max_tokens <= MOST_PARENT_TOKENS:
            raise ValueError(f"parent.max_tokens must be from {LEAST_TOKENS} to {MOST_PARENT_TOKENS}")
        if self.kind == "full_document" and self.separator is not None:
            raise ValueError("parent.separator requires kind paragraph")


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The rules.

    A text is split at each `separator` (None fills the segments), and a piece longer than `max_tokens` also between
    its sentences; there each segment but a piece's first begins with the last `overlap` tokens of the one before. In
    mode `parent_child` these are the rules of the children. Raises: ValueError for rules that contradict each other;
    its sentence begins with the field.
    """

    mode: Mode = "automatic"
    separator: str | None = SEPARATOR
    max_tokens: int = MOST_TOKENS
    overlap: int = 0
    cleanup: tuple[Cleanup, ...] = ()
    parent: Parent | None = None

    def __post_init__(self) -> None:
        _separates("separator", self.separator)
        if not LEAST_TOKENS <= self.max_tokens <= MOST_TOKENS:
            raise ValueError(f"max_tokens must be from {LEAST_TOKENS} to {MOST_TOKENS}")
        if not 0 <= self.overlap <= self.max_tokens // 2:
            raise ValueError("overlap must be at least 0, and at most half of max_tokens")
        if self.mode in ("automatic", "question_answer"):
            for name, default in (("separator", SEPARATOR), ("max_tokens", MOST_TOKENS), ("overlap", 0)):
                if getattr(self, name) != default:
                    raise ValueError(f"{name} requires mode custom or parent_child")
        if self.mode != "parent_child" and self.parent is not None:
            raise ValueError("parent requires mode parent_child")
        if self.mode == "parent_child" and self.parent is None:
            object.__setattr__(self, "parent", Parent())

    @classmethod
    def of(cls, plain: dict[str, Any] | None) -> Self:
        """The rules as plain JSON has them; the automatic ones for None. Raises: ValueError."""
        fields = dict(plain or {})
        parent = fields.pop("parent", None)
        cleanup = tuple(dict.fromkeys(fields.pop("cleanup", ())))
        return cls(**fields, cleanup=cleanup, parent=Parent(**parent) if parent else None)

    def plain(self) -> dict[str, Any]:
        """The rules as plain JSON."""
        return {**asdict(self), "cleanup": list(self.cleanup)}


AUTOMATIC = Segmentation()
