"""How texts are cut into segments: the rules of a knowledge base, or of one of its documents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Mode = Literal["automatic", "custom", "parent_child", "question_answer"]
Cleanup = Literal["remove_extra_spaces", "remove_urls_emails"]
ParentKind = Literal["paragraph", "full_document"]

MOST_TOKENS = 254
"""Tokens of what is embedded, the special ones not counted: no more fits the smallest models in use."""

LEAST_TOKENS = 16
"""A limit below this would make more segments than sense."""

SEPARATOR = "\n\n"
"""Ends a paragraph."""

LONGEST_SEPARATOR = 64
"""Characters."""

PARENT_TOKENS = 1000
MOST_PARENT_TOKENS = 8000
"""Tokens of a parent, which is given to the model and never embedded."""

FORMS = {"automatic": "text_model", "custom": "text_model"} | {
    "parent_child": "hierarchical_model",
    "question_answer": "qa_model",
}
"""What a document of each mode is called in the tables."""


def _separates(name: str, separator: str | None) -> None:
    if separator is not None and not 1 <= len(separator) <= LONGEST_SEPARATOR:
        raise ValueError(f"{name} must have 1 to {LONGEST_SEPARATOR} characters, or be null")


@dataclass(frozen=True, slots=True)
class Parent:
    """What is given to the model in place of a small segment that was found.

    Of kind `paragraph` it ends at each `separator`, or holds as many paragraphs under one heading as fit when that is
    None; of kind `full_document` it is the whole text. What is longer than `max_tokens` becomes several.
    """

    kind: ParentKind = "paragraph"
    separator: str | None = None
    max_tokens: int = PARENT_TOKENS

    def __post_init__(self) -> None:
        _separates("parent.separator", self.separator)
        if not LEAST_TOKENS <= self.max_tokens <= MOST_PARENT_TOKENS:
            raise ValueError(f"parent.max_tokens must be from {LEAST_TOKENS} to {MOST_PARENT_TOKENS}")
        if self.kind == "full_document" and self.separator is not None:
            raise ValueError("parent.separator is for parents of kind paragraph")


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The rules.

    A text is cut at each `separator` (None: nowhere, so that segments are filled), and where a piece is longer than
    `max_tokens` between its sentences; there each segment but a piece's first begins with the last `overlap` tokens of
    the one before. In mode `parent_child` they are the rules of the children. Raises: ValueError for rules that do not
    go together; the sentence begins with the field.
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
                    raise ValueError(f"{name} is for the modes custom and parent_child")
        if self.mode != "parent_child" and self.parent is not None:
            raise ValueError("parent is for the mode parent_child")
        if self.mode == "parent_child" and self.parent is None:
            object.__setattr__(self, "parent", Parent())

    @classmethod
    def of(cls, plain: dict[str, Any] | None) -> Self:
        """From plain JSON; None stands for the automatic rules. Raises: ValueError."""
        fields = dict(plain or {})
        parent = fields.pop("parent", None)
        cleanup = tuple(dict.fromkeys(fields.pop("cleanup", ())))
        return cls(**fields, cleanup=cleanup, parent=Parent(**parent) if parent else None)

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "cleanup": list(self.cleanup)}


AUTOMATIC = Segmentation()
