"""Behaviour of the annotations of the read tables, on a real database that a projector keeps from a log."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.postgres import tables
from adapters.postgres.annotations import PostgresAnnotations
from domain.chat.annotation import Annotation
from domain.chat.app import App
from handlers.chat.annotations import pack
from handlers.ports.documents import Vectors
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from tests.adapters.test_postgres import caught_up, following
from tests.projections.history import History


def vector(*numbers: float) -> Vectors:
    found = np.array(numbers, np.float32)
    return found / np.linalg.norm(found)


def annotate(history: History, app: App, question: str, *numbers: float, model: str = "a-model") -> Annotation:
    fields = {"app": app.id, "question": question, "answer": "Yes.", "conversation": None, "message": None}
    annotation = Annotation.begin(Annotation.Created, question, history.now, **fields)
    history.record(annotation)
    embed(history, annotation, *numbers, model=model)
    return annotation


def embed(history: History, annotation: Annotation, *numbers: float, model: str = "a-model") -> None:
    annotation.embed(history.now, revision=annotation.revision, embedding_model=model, vector=pack(vector(*numbers)))
    history.record(annotation)


async def test_the_closest_annotation_follows_the_log(database_url: str) -> None:
    await tables.set_up(database_url)
    history = History()
    app, other = history.app(), history.app()
    east = annotate(history, app, "east", 1, 0)
    north = annotate(history, app, "north", 0, 1)
    annotate(history, other, "elsewhere", 0.6, 0.8)
    async with PostgresAnnotations(database_url) as annotations, following(database_url, history):

        async def nearest(*numbers: float, model: str = "a-model", tenant: str = "default") -> tuple[str, float] | None:
            await caught_up(database_url, history)
            found = await annotations.nearest(tenant, app.id, model, vector(*numbers))
            return found and (found.annotation, round(found.score, 3))

        assert await nearest(0.6, 0.8) == ("north", 0.8)
        assert await nearest(0.8, 0.6) == ("east", 0.8)
        assert await nearest(0.8, 0.6, model="another") is None
        assert await nearest(0.8, 0.6, tenant="another") is None
        assert await annotations.of("default", app.id, len(history.messages)) == ["north", "east"]

        embed(history, east, 0, 0, 1, model="another")  # next to the old one
        assert await nearest(0, 0, 1, model="another") == ("east", 1.0)
        assert await nearest(1, 0) == ("east", 1.0)

        east.edit(history.now, question="west?", answer=None)
        history.record(east)
        assert await nearest(1, 0) == ("north", 0.0)
        embed(history, east, -1, 0)
        assert await nearest(-1, 0) == ("east", 1.0)

        with pytest.raises(ModelError) as caught:
            await nearest(1, 0, 0)
        assert caught.value.code == "embedding_changed"

        north.remove(history.now)
        history.record(north)
        assert await nearest(0.1, 1) == ("east", pytest.approx(-0.1, abs=0.01))
        assert await annotations.of("default", app.id, len(history.messages)) == ["east"]

        app.delete(history.now)
        history.record(app)
        assert await nearest(1, 0) is None


async def test_tables_that_do_not_come_up_or_answer_are_unavailable(database_url: str) -> None:
    async with PostgresAnnotations(database_url, timeout_s=0.2) as annotations:
        with pytest.raises(Unavailable):
            await annotations.nearest("default", "app", "a-model", vector(1, 0))
        await tables.set_up(database_url)
        with pytest.raises(Unavailable):
            await annotations.of("default", "app", 10)
