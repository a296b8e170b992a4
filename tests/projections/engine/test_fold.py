from __future__ import annotations

import dataclasses
from copy import copy
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Text

from domain.access.end_user import EndUser, earlier_person_id
from domain.access.tenant import HOUSE
from domain.chat.app import App
from domain.log import EVENTS, Position, Recorded
from projections.apps import apps
from projections.catalog import KNOWN, READ_MODELS
from projections.conversations import conversations
from projections.datasets import datasets
from projections.document_segments import document_segments
from projections.documents import documents
from projections.engine.columns import key, required
from projections.engine.fold import Fold, Unprojected
from projections.engine.read_model import ReadModel, Row, Setting, originator
from projections.messages import messages
from tests.projections.history import History, Tables
from tests.projections.wandering import TENANTS, id_of, wander


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_rows_do_not_depend_on_how_the_log_is_cut_into_batches(random: Random, steps: int) -> None:
    history = wander(random, steps)
    at_once, in_parts = Tables(), Tables()
    log = history.messages
    at_once.apply(log, history.blobs)
    cuts = [0, *sorted(random.randrange(len(log) + 1) for _ in range(random.randint(1, 12))), len(log)]
    for start, end in pairwise(cuts):
        in_parts.apply(log[start:end], history.blobs)
    assert in_parts.stored == at_once.stored


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_nothing_is_left_of_what_was_deleted(random: Random, steps: int) -> None:
    history, tables = wander(random, steps), Tables()
    tables.apply(history.messages, history.blobs)
    belongings = [
        (documents, "dataset_id", datasets),
        (document_segments, "document_id", documents),
        (document_segments, "dataset_id", datasets),
        (conversations, "app_id", apps),
        (messages, "conversation_id", conversations),
        (messages, "app_id", apps),
    ]
    for model, column, owner in belongings:
        for (tenant, _), row in tables.stored[model].items():
            assert (tenant, row[column]) in tables.stored[owner]


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_no_word_is_left_of_a_person_who_was_erased(random: Random, steps: int) -> None:
    history, tables = wander(random, steps), Tables()
    for user in ("bo", "cy"):
        for tenant in (*TENANTS, HOUSE):
            history.tenant = tenant
            for erasures in range(steps):
                history.record(
                    EndUser.begin(EndUser.Erased, earlier_person_id(user, erasures), history.now, known=True)
                )
    tables.apply(history.messages, history.blobs)
    for model in READ_MODELS:
        blank = {name: value for _, rule in model.rules if isinstance(rule, Setting) for name, value in rule.to.items()}
        for row in tables.rows(model):
            if row.get("person_id"):
                assert blank
                for name, value in blank.items():
                    assert row[name] == value or name == "status", (model, name)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150))
def test_tables_are_the_same_when_they_are_made_after_people_were_erased(random: Random, steps: int) -> None:
    """The tables lose exactly what the log has lost, in every value derived from it."""
    history = wander(random, steps)
    erased: dict[tuple[str, str], int] = {}
    for message in history.streams[EVENTS]:
        if any(isinstance(event, EndUser.Erased) for event in message.events):
            erased[message.subject.tenant, message.subject.id] = message.position.sequence

    def read(*, late: bool) -> list[Recorded]:
        """The log as it is read before, or long after."""

        def readable(message: Recorded) -> bool:
            gone = erased.get((message.subject.tenant, message.metadata.person or ""))
            return gone is None or (message.position.sequence < gone and not late)

        return [message if readable(message) else illegible(message) for message in history.messages]

    live, rebuilt = Tables(), Tables()
    live.apply(read(late=False), history.blobs)
    rebuilt.apply(read(late=True), history.blobs)
    for model in READ_MODELS:
        assert live.rows(model) == rebuilt.rows(model), model


def illegible(message: Recorded) -> Recorded:
    """A message whose key is gone."""
    events = []
    for event in message.events:
        blank = copy(event)
        for name in getattr(event, "PERSONAL", ()):
            if (words := getattr(event, name)) is not None:
                blank.__dict__[name] = type(words)()
        events.append(blank)
    return dataclasses.replace(message, events=events)  # type: ignore[arg-type]


def test_a_setting_touches_the_rows_that_came_before_it_and_no_others() -> None:
    class Struck(App.Event):
        TOPIC = "app.struck.v1"

    model = ReadModel("things", "", key("id", ""), required("owner", Text, ""), required("words", Text, ""))

    @model.makes(App.Created, new=originator)
    def made(event: App.Created, message: Recorded) -> Row:
        return {"id": event.originator_id, "owner": message.metadata.actor, "words": event.name}

    model.sets(Struck, {"words": "-"}, column="owner", pick=lambda event, message: message.metadata.actor)
    history = History()
    before, after = history.app("before"), None
    log = history.streams[EVENTS]
    last = log[-1]
    struck = Struck(originator_id="1", originator_version=2, timestamp=last.at)
    log.append(dataclasses.replace(last, events=[struck], position=Position(EVENTS, 2)))  # type: ignore[arg-type]
    after = history.app("after")
    fold = Fold([model], {App.Created, Struck})
    (rows,) = fold(log, {}, {})
    assert {id: (row["words"], row["log_position"]) for (_, id), row in rows.rows.items()} == {
        before.id: ("-", 2),
        after.id: ("after", 3),
    }
    assert [(done.tenant, done.value, done.position) for done in rows.set] == [("default", "ada", 2)]
    with pytest.raises(ValueError, match="found by"):
        model.sets(Struck, {"owner": ""}, column="owner")
    with pytest.raises(ValueError, match="set again"):
        model.sets(Struck, {"words": ""}, column="owner", only={"words": ""})


def test_tenants_that_choose_the_same_id_do_not_touch_each_other() -> None:
    history = History()
    for tenant in TENANTS:
        history.tenant = tenant
        app = history.app(name=tenant, id=id_of(1, 1))
    app.delete(history.now)
    history.record(app)
    assert [(row["tenant_id"], row["name"]) for row in history.rows(apps)] == [("one", "one")]


def test_a_row_that_came_again_elsewhere_does_not_go_with_its_old_place() -> None:
    history = History()
    app = history.app()
    old, new = history.conversation(app.id), history.conversation(app.id)
    message = history.ask(old)
    history.ask(new, id=message)
    old.delete(history.now)
    history.record(old)
    assert [(row["id"], row["conversation_id"]) for row in history.rows(messages)] == [(message, new.id)]


def test_an_event_that_no_table_knows_stops_the_fold() -> None:
    class Renamed(App.Event):
        TOPIC = "app.renamed.v1"

    history = History()
    history.app()
    last = history.streams[EVENTS][-1]
    unknown = Renamed(originator_id="1", originator_version=2, timestamp=last.at)
    message = dataclasses.replace(last, events=[unknown])  # type: ignore[arg-type]
    fold = Fold(READ_MODELS, KNOWN)
    with pytest.raises(Unprojected, match=r"Renamed, at EVENTS 1"):
        fold([message], {}, {})


def test_a_column_that_a_table_does_not_have_is_an_error() -> None:
    history = History()
    with pytest.raises(TypeError, match="Table apps has no columns nmae"):
        apps.made("default", 1, history.now, {"id": "1", "nmae": "Help"})
