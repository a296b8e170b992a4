"""Goes on with an answer once a person has decided about a call of a tool that it waits for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from domain.chat.conversation import Conversation
from domain.log import Commit, commit_id
from domain.tools.tool_call import ToolCall
from handlers.repository import Repository


@dataclass(frozen=True, slots=True)
class Resume:
    repository: Repository

    async def __call__(self, commit: Commit) -> None:
        """Record the decision with the message, in the trace of the message. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        call = await self.repository.get(ToolCall, tenant, id)
        first = await self.repository.first(ToolCall, tenant, id)
        if call is None or first is None or call.status == "held":  # another question is open
            return
        at = datetime.now(UTC)

        def decide(conversation: Conversation | None) -> Conversation:
            assert conversation is not None
            conversation.decide(at, message=call.cause_id, call=id)
            return conversation

        metadata = first.metadata.caused(commit_id(commit.metadata.id, f"resume:{id}"))
        metadata = replace(metadata, causation=commit.metadata.id)
        await self.repository.change(Conversation, call.conversation, metadata, decide)
