"""Steps of late workers, which only logs written before steps were fenced by attempt have.

In such a log, a worker whose attempt was over could still record steps of the work, under the command that began its
own attempt, and so end a later attempt. These steps count in the trace of the newest attempt. Since steps are fenced, a
step's correlation is that trace, and nothing here changes it; but where a stop ends an answer that is held, the
steps follow from the command to stop.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Recorded
from domain.models.replay import Replay
from domain.workflows.run import Run
from projections.engine.links import brings, redirects
from projections.engine.read_model import ReadModel, Row, originator
from projections.messages import message_of
from projections.traces.spans import STEPS, span_id
from projections.traces.subjects import subjects

OF_MESSAGES = (
    Conversation.Answering,
    Conversation.Held,
    Conversation.Resumed,
    Conversation.Answered,
    Conversation.Failed,
    Conversation.Stopped,
)
OF_OTHERS = (
    Document.Started,
    Document.Parsed,
    Document.Split,
    Document.Completed,
    Document.Failed,
    Replay.Completed,
    Replay.Failed,
)
OF_RUNS = (Run.Taken, Run.Stepped, Run.Finished, Run.Retried)
"""They follow from the command to answer a form or to go on, too; all of a run is in the trace that it began in."""

PARTS = {"message": ("", "retrieval"), "document": ("", *STEPS.values()), "replay": ("",), "run": ("",)}
"""Parts of the work that steps end: the handler, and what it does."""


def redirect(message: Recorded, subject: Row) -> Recorded:
    """The message in the trace of its subject's newest attempt."""
    if subject["trace_id"] == message.metadata.correlation:
        return message
    return replace(message, metadata=replace(message.metadata, correlation=subject["trace_id"]))


def redirect_steps(spans: ReadModel, traces: ReadModel) -> None:
    """Have the rules of both tables take the steps of late workers in the trace of the newest attempt."""
    redirects(spans, OF_MESSAGES, subjects, message_of, redirect)
    redirects(spans, (*OF_OTHERS, *OF_RUNS), subjects, originator, redirect)
    brings(subjects, traces, lambda row: row["trace_id"])
    for part in sorted({part for parts in PARTS.values() for part in parts}):
        brings(subjects, spans, partial(_span, part))


def _span(part: str, subject: Row) -> str | None:
    return span_id(subject["trace_id"], subject["id"], part) if part in PARTS[subject["noun"]] else None
