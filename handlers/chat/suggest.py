"""Suggests questions that a user may ask after an answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.chat.app import App, ModelSettings
from domain.chat.conversation import Conversation, Suggestions, question
from domain.log import Commit, commit_id
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import MESSAGE_TOKENS, Record, estimate, literal
from handlers.ports.log import Live
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest, ModelError
from handlers.repository import Repository

NOUN = "suggestion"
"""Noun that the calls name as their cause, with the id of the message."""

STEP, PLAIN = "suggest", "suggest:plain"
"""Steps: a call with the schema, and one without it where the server does not take one."""

LIMIT_S = 60.0
"""Time limit of all calls, in seconds."""

NUMBER = 3
"""Number of questions."""

LONGEST_ANSWER, LONGEST_QUESTION = 16 * 1024, 500
"""Maximum length of the model's answer and of a question, in characters."""

INSTRUCTIONS = (
    f"Suggest the {NUMBER} questions that the user of the following conversation is most likely to ask next. Each is "
    "short, stands for itself, and is in the language of the conversation. Do not repeat what was asked. Answer with "
    'one JSON object and nothing else: {"questions": ["…", "…", "…"]}'
)
"""Default instructions."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}}},
    "required": ["questions"],
    "additionalProperties": False,
}

_MARKER = re.compile(r"\A[\s\-*•\d.)\"“]*+")


@dataclass(frozen=True, slots=True)
class Suggest:
    repository: Repository
    calls: ModelCalls
    choose: Choose[ChatModel]
    live: Live
    limit_s: float = LIMIT_S

    async def __call__(self, commit: Commit) -> None:
        """React to a request for suggestions. Raises: Unavailable."""
        for event in commit.events:
            if isinstance(event, Conversation.SuggestionsRequested):
                await self._suggest(commit, event)

    async def _suggest(self, commit: Commit, event: Conversation.SuggestionsRequested) -> None:
        tenant, id = commit.subject.tenant, commit.subject.id
        conversation = await self.repository.get(Conversation, tenant, id)
        app = await self.repository.get(App, tenant, event.app)
        message = conversation and conversation.messages.get(event.message)
        if not conversation or conversation.deleted or not message or message.get("suggestions") != "requested":
            return
        found = Suggestions(message=event.message, questions=[], model_call="")
        try:
            async with asyncio.timeout(self.limit_s):
                if app is None or app.deleted or not question(message):
                    raise ModelError("not_found", "The app was deleted, or the user erased.")
                cause = Cause(commit.metadata, NOUN, event.message, 1, app=app.id)
                chat = await self._ask(cause, app, event.configuration, conversation, event.message)
            found.update({"questions": questions(chat.said), "model_call": chat.id})
            if not found["questions"]:
                raise ModelError("invalid_answer", "The model suggested no questions.")
        except ModelError as error:
            found.update({"code": error.code, "reason": error.reason[:1000]})
        except TimeoutError:
            found.update({"code": "timeout", "reason": f"The model took longer than {self.limit_s:g} s."})
        await self._record(commit, found)
        frame = {"type": "suggested", "questions": found["questions"], "code": found.get("code")}
        await self.live.publish(tenant, id, event.message, frame)

    async def _ask(self, cause: Cause, app: App, number: int, conversation: Conversation, message: str) -> Chat:
        """Ask the model; without the schema where the server refuses it. Raises: ModelError, Unavailable."""
        configuration = app.configurations[str(number)]
        settings = configuration["features"]["suggest_after_answer"]
        assert settings is not None
        model = settings["model"] or configuration["model"]
        instructions = settings["prompt"] or INSTRUCTIONS
        messages = [
            ChatMessage("system", instructions),
            ChatMessage("user", dialogue(conversation, message, _room(model, instructions))),
        ]
        origins = [{}, {"from": "history", "message_id": message}]
        record = Record([literal(*pair) for pair in zip(messages, origins, strict=True)], {})
        for step, schema in ((STEP, SCHEMA), (PLAIN, None)):
            cause = await self.calls.next_attempt(cause, step)
            request = ChatRequest(
                model["name"],
                messages,
                model["max_tokens"],
                model["parameters"],
                schema=schema,
                context_window=model["context_window"],
            )
            course = self.choose(cause.metadata.tenant, model, request)
            chat = self.calls.chat(cause, course, request, record, step=step)
            try:
                if len(await chat.up_to(LONGEST_ANSWER)) > LONGEST_ANSWER:
                    raise ModelError("invalid_answer", f"It said more than {LONGEST_ANSWER:,} characters.")
            except ModelError as error:
                if schema is None or error.code not in ("bad_request", "no_model", "unsupported"):
                    raise
            else:
                break
        return chat

    async def _record(self, commit: Commit, found: Suggestions) -> None:
        at = datetime.now(UTC)

        def decide(conversation: Conversation | None) -> Conversation:
            assert conversation is not None
            conversation.suggest(at, **found)
            return conversation

        metadata = commit.metadata.caused(commit_id(commit.metadata.id, f"{found['message']}:suggested"))
        await self.repository.change(Conversation, commit.subject.id, metadata, decide)


def _room(model: ModelSettings, instructions: str) -> int:
    """Tokens that are left for the dialogue."""
    return model["context_window"] - model["max_tokens"] - estimate(instructions) - 2 * MESSAGE_TOKENS


def dialogue(conversation: Conversation, message: str, tokens: int) -> str:
    """The conversation up to a message, as far back as it fits; of one that does not fit, the beginning."""
    turns: list[str] = []
    for known in (conversation.messages[message], *conversation.history(message).values()):
        text = f"User: {question(known)}\nAssistant: {known['answer']}"
        if (spent := estimate(text)) > tokens:
            if not turns:
                turns.append(text.encode()[: max(2 * tokens, 0)].decode(errors="ignore"))
            break
        turns.append(text)
        tokens -= spent
    return "\n\n".join(reversed(turns))


def questions(said: str) -> list[str]:
    """At most `NUMBER` questions in a model's answer: of a JSON object or array, or else its lines with questions."""
    bare = said.rpartition("</think>")[2].strip().removeprefix("```json").strip("`\n ")
    found: Sequence[object] = []
    with suppress(ValueError, RecursionError):
        answer = json.loads(bare)
        found = answer.get("questions", []) if isinstance(answer, dict) else answer
    if not isinstance(found, list) or not found:
        found = [] if bare.startswith(("{", "[")) else list(_lines(bare))
    texts = [" ".join(text.split()) for text in found if isinstance(text, str) and "\0" not in text]
    return list(dict.fromkeys(text for text in texts if 0 < len(text) <= LONGEST_QUESTION))[:NUMBER]


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        asked = _MARKER.sub("", line[:2000]).rstrip('"” ')
        if asked.endswith(("?", "？", "؟")):
            yield asked
