"""Commands of annotations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.builtin import BUILTIN
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from handlers.commands.embedding import EmbeddingModelName, EmbeddingProvider, chosen_embedding
from handlers.commands.fields import AnnotationId, AppId, Command, ConversationId, MessageId, not_blank
from handlers.commands.preparation import Change, Make, Preparation

Question = Annotated[str, Field(max_length=10_000), AfterValidator(not_blank)]
Answer = Annotated[str, Field(max_length=100_000), AfterValidator(not_blank)]


class CreateAnnotation(Command):
    """Store a question and its answer for an app, or those of an answered message."""

    app: AppId
    question: Question | None = Field(None, description="Question; null for that of the message")
    answer: Answer | None = Field(None, description="Answer; null for that of the message")
    conversation: ConversationId | None = Field(None, description="Conversation of the message; null for none")
    message: MessageId | None = Field(None, description="Answered message that it is made from; null for none")

    @model_validator(mode="after")
    def _has_a_source(self) -> CreateAnnotation:
        if (self.conversation is None) != (self.message is None):
            raise ValueError("message and conversation are given together, or not at all")
        if self.message is None and self.question is None:
            raise ValueError("question is required without a message")
        if self.message is None and self.answer is None:
            raise ValueError("answer is required without a message")
        return self


class EditAnnotation(Command):
    """Edit the question or the answer of an annotation."""

    annotation: AnnotationId
    question: Question | None = Field(None, description="Question; null keeps it")
    answer: Answer | None = Field(None, description="Answer; null keeps it")


class RemoveAnnotation(Command):
    """Remove an annotation."""

    annotation: AnnotationId


class SetAnnotationReply(Command):
    """Have an app give the answers of its annotations to questions that are close enough, or no more."""

    app: AppId
    enabled: bool = Field(description="Give stored answers")
    score_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9, description="Minimum cosine of two questions, up to 1"
    )
    embedding_provider: EmbeddingProvider = BUILTIN
    embedding_model: EmbeddingModelName | None = Field(
        None,
        description="Embedding model of the questions; null for the tenant's default one, or else that of the workers",
    )


async def create(command: CreateAnnotation, given: Preparation) -> Make[Annotation]:
    question, answer = command.question, command.answer
    if command.conversation is not None and command.message is not None:
        conversation = given.the(Conversation, "conversation")
        if conversation.app != command.app:
            raise Rejection("wrong_app", f"Conversation {conversation.id} belongs to app {conversation.app}.", "app")
        *_, copied = conversation.copied(command.message)
        question, answer = question or copied["query"], answer or copied["answer"]
    return lambda id, at: Annotation.begin(
        Annotation.Created,
        id,
        at,
        app=command.app,
        question=str(question),
        answer=str(answer),
        conversation=command.conversation,
        message=command.message,
    )


def edit(annotation: Annotation, at: datetime, command: EditAnnotation) -> None:
    annotation.edit(at, question=command.question, answer=command.answer)


async def set_reply(command: SetAnnotationReply, given: Preparation) -> Change[App]:
    embedding = await chosen_embedding(given, command.embedding_provider, command.embedding_model)
    return lambda app, at: app.set_annotation_reply(
        at, enabled=command.enabled, score_threshold=command.score_threshold, embedding=embedding
    )
