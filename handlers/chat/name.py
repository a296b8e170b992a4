"""Names a conversation by a model, from a question and its answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from domain.builtin import BUILTIN
from domain.chat.app import App, ModelSettings
from domain.chat.conversation import Conversation, Message, question
from domain.excerpt import excerpt
from domain.log import Commit, commit_id
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import Record, literal
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest, ModelError
from handlers.repository import Repository

log = structlog.get_logger(__name__)

STEP = "name"
"""Step of the message's calls."""

LONGEST_NAME = 60
"""Maximum length of a name, in characters."""

LONGEST_TEXT = 2000
"""Maximum length of the question and of the answer that the model reads, in characters."""

LONGEST_REPLY = 2000
"""Maximum length of the model's reply, in characters; a longer one has no name."""

INSTRUCTIONS = """\
Give the conversation below a short title, of at most six words, in the language of its question. \
Answer with the title and nothing else."""

_MARKS = " \t\"'`“”‘’«»„*#_"


@dataclass(frozen=True, slots=True)
class NameConversation:
    """A call that fails leaves the name as it is; it is not repeated."""

    repository: Repository
    calls: ModelCalls
    choose: Choose[ChatModel]
    patience_s: float = 60.0

    async def __call__(self, commit: Commit) -> None:
        """React to requests of a name. Raises: Unavailable."""
        for event in commit.events:
            if isinstance(event, Conversation.NamingRequested):
                await self._name(commit, event)

    async def _name(self, commit: Commit, event: Conversation.NamingRequested) -> None:
        tenant, id = commit.subject.tenant, commit.subject.id
        conversation = await self.repository.get(Conversation, tenant, id)
        if conversation is None or not _takes_name(conversation, event):
            return
        app = await self.repository.get(App, tenant, conversation.app)
        if app is None or app.deleted or app.configuration is None:
            return
        cause = Cause(commit.metadata, "message", event.message, event.attempt, app=app.id)
        if name := _read(await self._reply(cause, app.configuration["model"], conversation.messages[event.message])):
            await self._record(commit, event, name)

    async def _reply(self, cause: Cause, model: ModelSettings, message: Message) -> str:
        """The reply of the model, of an earlier delivery if that made the call; empty where it fails."""
        call = await self.calls.last(cause, STEP)
        if call is None:
            return await self._ask(cause, model, message)
        commits = await self.repository.commits(ModelCall, cause.metadata.tenant, call)
        match [event for commit in commits for event in commit.events]:
            case [_]:
                reason = "The worker died with the call in flight."
                await self.calls.fail(cause, call, code="lost", reason=reason, response="")
                return ""
            case [_, ModelCall.Completed() as made]:
                return made.response
            case _:
                return ""

    async def _ask(self, cause: Cause, model: ModelSettings, message: Message) -> str:
        if model["provider"] == BUILTIN or not question(message):
            return ""
        asked, answered = (excerpt(text, LONGEST_TEXT) for text in (question(message), message["answer"]))
        said = f"Question: {asked}\n\nAnswer: {answered}"
        messages = [ChatMessage("system", INSTRUCTIONS), ChatMessage("user", said)]
        origins = [{}, {"from": "history", "message_id": cause.id}]
        request = ChatRequest(model["name"], messages, model["max_tokens"], model["parameters"])
        record = Record([literal(*pair) for pair in zip(messages, origins, strict=True)], {})
        try:
            async with asyncio.timeout(self.patience_s):
                course = self.choose(cause.metadata.tenant, model, request)
                chat = self.calls.chat(cause, course, request, record, step=STEP)
                said = await chat.up_to(LONGEST_REPLY)
        except (ModelError, TimeoutError) as error:
            log.info("not named", tenant=cause.metadata.tenant, message=cause.id, kind=type(error).__name__)
            return ""
        return said if len(said) <= LONGEST_REPLY else ""

    async def _record(self, commit: Commit, event: Conversation.NamingRequested, name: str) -> None:
        at = datetime.now(UTC)

        def decide(conversation: Conversation | None) -> Conversation:
            assert conversation is not None
            if _takes_name(conversation, event):
                conversation.rename(at, name=name)
            return conversation

        metadata = commit.metadata.caused(commit_id(commit.metadata.id, f"{STEP}:{event.attempt}"))
        await self.repository.change(Conversation, commit.subject.id, metadata, decide)


def _takes_name(conversation: Conversation, event: Conversation.NamingRequested) -> bool:
    """True unless it has ended, was named by a person meanwhile, or a newer request is there."""
    if conversation.deleted or not conversation.user or conversation.namings != event.attempt:
        return False
    return event.attempt > 1 or not conversation.renamed


def _read(reply: str) -> str:
    """The name in a reply: its first line, without quotation marks; empty where there is none."""
    lines = (line.strip(_MARKS) for line in reply.rpartition("</think>")[2].splitlines())
    return excerpt(next(filter(None, lines), ""), LONGEST_NAME)
