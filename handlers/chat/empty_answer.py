"""The reason why a model has answered without a word."""

from __future__ import annotations

from handlers.ports.models import ModelError

FILTERED = frozenset(
    [
        *("content_filter", "content-filter", "contentfilter", "safety", "recitation", "blocklist", "refusal"),
        *("prohibited_content", "spii", "sensitive", "guardrail_intervened"),
    ]
)
CUT = frozenset(["length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"])
CALLED = frozenset(["tool_calls", "tool_call", "function_call", "tool_use"])
"""Reasons that servers give for the end of an answer: a filter, the limit of tokens, a tool."""


def empty(finish_reason: str | None) -> ModelError:
    """The error of an answer without a word, by the server's reason for its end."""
    given = (finish_reason or "").lower()
    end = f" ({finish_reason})" if finish_reason else ""
    if given in FILTERED:
        return ModelError("content_filter", f"The server withheld the answer, as its filter did not let it pass{end}.")
    if given in CUT:
        advice = "set a larger model.max_tokens."
        return ModelError("length", f"The model used up its tokens before it began to answer{end}: {advice}")
    if given in CALLED:
        advice = "remove the tools from model.parameters."
        return ModelError(
            "tool_calls", f"The model called a tool instead of an answer{end}, and apps have none: {advice}"
        )
    return ModelError("empty_answer", f"The model ended its answer without a word{end}.")
