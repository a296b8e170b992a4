"""An annotation: a question and its answer, which an app gives without a model to questions that are close enough."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

Question = Annotated[str, "Question."]
Answer = Annotated[str, "Answer."]


class Annotation(Aggregate):
    """`embedded` are the models that have embedded its revision number `revision`, which an edit ends."""

    TOPIC = "annotation"
    app: str
    question: str
    answer: str
    revision: int = field(default=1, init=False)
    embedded: list[str] = field(default_factory=list, init=False)

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A question and its answer were stored for an app."""

        TOPIC = "annotation.created.v1"
        PERSONAL = frozenset({"answer", "question"})
        app: Annotated[str, "App."]
        question: Question
        answer: Answer
        conversation: Annotated[str | None, "Conversation of the message that it was made from; null for none."]
        message: Annotated[str | None, "Message that it was made from; null for none."]

    class Edited(Event):
        """The question or the answer was edited."""

        TOPIC = "annotation.edited.v1"
        PERSONAL = frozenset({"answer", "question"})
        question: Question
        answer: Answer

        def apply(self, annotation: Annotation) -> None:
            annotation.revision += 1
            annotation.embedded = []
            annotation.question, annotation.answer = self.question, self.answer

    class Embedded(Event):
        """The question was embedded."""

        TOPIC = "annotation.embedded.v1"
        PERSONAL = frozenset({"vector"})
        app: Annotated[str, "App."]
        embedding_model: Annotated[str, "Identity of the embedding model: vectors of others do not compare."]
        vector: Annotated[str, "Vector of length 1: numbers of 16 bits, little-endian, in Base64."]

        def apply(self, annotation: Annotation) -> None:
            annotation.embedded.append(self.embedding_model)

    class Removed(Event):
        """The annotation was removed."""

        TOPIC = "annotation.removed.v1"

        def apply(self, annotation: Annotation) -> None:
            annotation.deleted = True

    def edit(self, at: datetime, *, question: str | None, answer: str | None) -> None:
        """Give it another question or answer; None keeps the one there is. Raises: Rejection `erased`."""
        if not self.question:
            raise Rejection("erased", "The person of the annotation was erased: create another one.", "annotation")
        question, answer = question or self.question, answer or self.answer
        if (question, answer) != (self.question, self.answer):
            self.record(self.Edited, at, question=question, answer=answer)

    def embed(self, at: datetime, *, revision: int, embedding_model: str, vector: str) -> None:
        """Keep the vector of the question, if it was not edited since."""
        if not self.deleted and self.revision == revision and embedding_model not in self.embedded:
            self.record(self.Embedded, at, app=self.app, embedding_model=embedding_model, vector=vector)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)
