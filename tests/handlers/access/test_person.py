"""Words of a person are recorded with that person, by commands and by works: without one, nothing seals them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, get_args, get_type_hints, is_typeddict

import pytest
from pydantic import BaseModel

from domain.aggregate import Created, Event
from domain.log import EVENTS, Commit
from handlers.models.model_calls import ModelCalls
from handlers.models.replay import ReplayCall
from handlers.ports.models import ModelError
from handlers.retrieval.query_datasets import QueryDatasets
from handlers.routes import ROUTES, Route
from handlers.work.dead_letters import Failure, GiveUp
from ops.asyncapi import events
from tests.handlers.chat.test_answer import Counter
from tests.handlers.chat.test_audio import Studio
from tests.handlers.desk import Desk
from tests.handlers.tools.scene import Scene
from tests.handlers.tools.scene import call as tool_call
from tests.handlers.workflows.stage import graph
from tests.handlers.workflows.test_effects import Outside, request
from tests.memory import Memory, MemoryLog

PERSONAL = {noun for noun, event in events().values() if event.PERSONAL}
"""The nouns with words of people."""

OF_SERVICES = {"account.create_service"}
"""Commands that make such a noun without a person."""

OF_ACCOUNTS = {"account", "door"}
"""The nouns whose person is an account, or the month of a report, not an end user."""

BY_CAUSE = {"dead_letter", "effect", "model_call", "retrieval", "tool_call"}
"""The nouns that no command makes: their person is that of the commit that led to them."""


NO_WORDS = {
    # Ids, digests, names of our own.
    "*.annotation *.app *.call *.cause_id *.cause_noun *.code *.consumer *.conversation *.dataset *.datasets"
    " *.digest *.field *.file *.issue *.kind *.message *.model_call *.model_calls *.parent *.repeats *.person *.segment"
    " *.segments *.stage *.stream *.stack *.where dead_letter.*.subject limits.*.subject quarantine.*": "ids, digests, "
    "codes, and places in code",
    "*.credential door.used.actor door.*.trace": "kinds of credentials, actors, ids",
    "message.asked.tool_call tool_call.requested.within": "ids",
    "message.moderated.verdicts": "kinds of filters, names of inputs, numbers of sentences, codes",
    "limits.*.period limits.*.quantity limits.*.scope budget.*.scope message.rated.rating"
    " quota.*.scope quota.*.unit quota.*.period quota.*.time_zone": "one of a few values",
    # The tenant's own texts and settings.
    "app.*": "the tenant's instructions and settings",
    "workflow.*": "digests of the tenant's graphs, names of versions, sealed secrets",
    "conversation.variables_set.run conversation.variables_set.step message.run_started.run": "ids",
    "tag.*": "the tenant's names, and ids",
    "plugin.* plugin_use.* plugin_storage.*": "packages; settings of tenants; reasons of our own; digests",
    "model_call.filtered.original tool_call.filtered.original": "digests",
    "budget.*.subject": "an app, a model, or a user as earlier versions recorded it",
    "quota.*.name quota.*.subject quota_window.*": "names that the tenant gives; ids, a provider or a model; figures",
    "user_secret.*": "names of toolsets, digests; a secret that is sealed with the person's key by itself",
    "toolset.*": "names, addresses and settings of the tenant; words of a server about its tools",
    "tool_call.requested.toolset tool_call.requested.tool tool_call.requested.name tool_call.held.*"
    " tool_call.asked.until tool_call.answered.action": "names of tools, times, one of a few values",
    "message.held.calls message.strategy_changed.before message.strategy_changed.strategy": "ids, and one of a few "
    "values",
    "model_call.reserved.grants model_call.charged.grants": "ids and figures",
    "dataset.*": "the tenant's names, fields and settings",
    "*.check": "ids",
    "run.*.key run.*.node run.*.until run.*.status run.answered.action run.finished.code"
    " run.started.source run.started.app run.started.entry run.started.tool_call run.started.mode"
    " run.started.trigger run.started.graph run.stepped.steps run.taken.by run.waiting.actions"
    " effect.*.kind effect.*.method effect.*.server effect.requested.step effect.requested.app"
    " effect.completed.digest": "ids, digests, times, codes and figures; titles of nodes and buttons, which are the "
    "tenant's",
    "model.set.type model.listed.type model.set.abilities model.checked.abilities": "types and abilities",
    "*.account *.apps *.ends_at *.expires_at *.former *.former_ends_at *.invitation *.owner *.permissions *.role"
    " api_key.*.hint": "ids, times and roles; the end of a key",
    "api_key.*.name sql_login.*.name tenant.*.name": "names that the tenant gives its keys and logins, and itself",
    "*.sealed_verifier": "a sealed verifier",
    "*.embedding_model *.model *.provider *.server *.route *.plugins provider.* route.* *.segmentation *.retrieval"
    " replay.requested.parameters": "settings of tenants and operators",
    "*.media_type": "media types",
    "transcription.requested.language transcription.completed.spoken_language speech.requested.voice": "names of "
    "languages and voices",
    # What servers of models say about a call.
    "*.finish_reason *.usage model_call.completed.response_id model_call.completed.response_model": "figures and names "
    "that the model's server gives",
    "retrieval.made.faults": "steps and codes",
    "retrieval.made.hits": "ids and scores; headings, except of documents of people: tests/handlers/retrieval",
    "passage.recorded.text": "shared knowledge: passages of documents of people are not recorded, see prompt.py",
}
"""Fields of events that may be texts and need no person, by reason: `<noun>.<event>.<field>`, `*` for any."""


def covered(field: str) -> bool:
    patterns = [pattern for patterns in NO_WORDS for pattern in patterns.split()]
    return any(fnmatchcase(field, pattern) for pattern in patterns)


def may_be_text(hint: Any) -> bool:
    if hint is str or hint is Any:
        return True
    if is_typeddict(hint) or (isinstance(hint, type) and issubclass(hint, BaseModel)):
        return any(may_be_text(inner) for inner in get_type_hints(hint).values())
    return any(may_be_text(inner) for inner in get_args(hint))


def texts_of(event: type[Event]) -> set[str]:
    """The fields of an event that may be texts, without those of every event."""
    stem = event.TOPIC.rpartition(".v")[0]
    common = get_type_hints(Created).keys()
    return {
        f"{stem}.{name}" for name, hint in get_type_hints(event).items() if name not in common and may_be_text(hint)
    }


def test_each_text_in_an_event_is_sealed_with_a_person_s_key_or_listed_with_a_reason() -> None:
    found = {field: event for _, event in events().values() for field in texts_of(event)}
    assert len(found) > 100
    sealed = {f"{event.TOPIC.rpartition('.v')[0]}.{name}" for _, event in events().values() for name in event.PERSONAL}
    assert {field for field in found if field not in sealed and not covered(field)} == set()
    assert {field for field in sealed if covered(field)} == set()
    unused = {p for patterns in NO_WORDS for p in patterns.split() if not any(fnmatchcase(f, p) for f in found)}
    assert unused == set()


PLAIN = {
    "account": "ids, and names of services",
    "api_key": "the tenant's names",
    "app": "the tenant's instructions and settings",
    "budget": "the tenant's names",
    "bus_login": "the tenant's names",
    "dataset": "the tenant's names, fields and settings",
    "dead_letter": "ids",
    "document": "ids and rules of segmentation",
    "model": "names of models, and the tenant's facts about them",
    "quarantine": "ids",
    "route": "the tenant's names and settings",
    "segment": "ids",
    "sql_login": "ids",
    "tag": "the tenant's names, and ids",
    "tenant": "ids, roles, and the name that the tenant gives itself",
    "workflow": "ids, and names of versions",
}
"""Nouns of commands whose rejected payloads are kept, by reason."""


def test_each_command_with_a_text_is_private_or_listed_with_a_reason() -> None:
    plain = {name for name, route in ROUTES.items() if not route.private}
    assert {name.partition(".")[0] for name in plain} == set(PLAIN)
    free = {"content", "answer", "text", "query", "inputs", "user", "metadata"}
    assert not [name for name in plain if free & ROUTES[name].command.model_fields.keys()]


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("message.send", {"query": "Why?", "My Wumpelfisch": 1}),
        ("message.send", {"query": "Why?", "inputs": {"My Wumpelfisch": "swims"}}),
        ("message.send", {"query": ["Wumpelfisch"]}),
        ("message.rate", {"rating": "Wumpelfisch"}),
        ("dataset.test", {"query": "Why?", "retrieval": {"My Wumpelfisch": "x"}}),
        ("document.upload", {"name": "a.txt", "text": "b", "user": "ada", "metadata": {"My Wumpelfisch": ["x"]}}),
        ("document.upload", {"name": "a.txt", "text": "b", "user": "ada", "metadata": {"My Wumpelfisch\0": "x"}}),
        ("document.upload", {"name": "Wumpelfisch/..", "text": "b", "user": "ada"}),
        ("segment.add", {"content": "Wumpelfisch", "answer": ["Wumpelfisch"]}),
    ],
)
async def test_no_rejection_repeats_words(memory: Memory, tenant: str, command: str, given: dict[str, Any]) -> None:
    desk = Desk(memory, tenant)
    app, dataset = await desk.done("app.create", name="A"), await desk.done("dataset.create", name="D")
    await desk.done("app.configure", app=app)
    named = {
        "message.send": {"app": app},
        "dataset.test": {"datasets": [dataset]},
        "document.upload": {"dataset": dataset},
    }
    outcome = await desk.send(command, **named.get(command, {}), **given)
    assert outcome.status == "rejected"
    assert "Wumpelfisch" not in str(outcome)


async def test_a_rejection_names_an_unknown_field(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    app = await desk.done("app.create", name="A")
    assert await desk.fails("message.send", app=app, query="Why?", querry="Why?") == ("invalid", "querry")


def begins(route: Route) -> bool:
    """Return whether the command may make an aggregate."""
    return route.target != route.noun.TOPIC or not route.command.model_fields[route.target].is_required()


def test_a_command_that_makes_a_noun_with_words_of_people_names_the_person() -> None:
    made = {
        (route.noun.TOPIC, route.person is not None)
        for name, route in ROUTES.items()
        if begins(route) and name not in OF_SERVICES
    }
    assert {noun for noun, _ in made} & PERSONAL == PERSONAL - BY_CAUSE
    assert not [noun for noun, named in made if noun in PERSONAL and not named]


async def test_all_that_follows_from_what_a_person_asks_names_the_person(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", ModelError("timeout", "Silence."))
    desk = counter.desk
    dataset = await desk.done("dataset.create", name="Rules")
    asked = await counter.asked(datasets=[dataset])
    await counter.worker()(asked)
    await counter.desk.done("message.retry", conversation=counter.conversation, message=counter.message)
    await given_up(counter, "answer", await counter.cause())

    [call] = [commit.subject.id for commit in await commits(counter, "model_call")][:1]
    [requested] = await desk.commits("replay", await desk.done("replay.request", call=call))
    await ReplayCall(desk.repository, ModelCalls(desk.repository), counter.choose, desk.files)(requested)

    document = await desk.done("document.upload", dataset=dataset, name="rules.txt", text="At six.", user="ada")
    await desk.done("document.rename", document=document, name="hours.txt")

    studio = Studio(memory, tenant)
    await studio.opened()
    await studio.hearing()(await studio.recording())
    await studio.speaking()(await studio.text())

    await desk.send("dataset.test", datasets=[dataset], query="When?", user="ada")
    [tested] = await commits(counter, "dataset_query")
    await QueryDatasets(desk.repository, counter.retrieve())(tested)

    counter.speaker.says = ["At six."]
    counter.message = (await desk.send("message.send", app=counter.app, query="When?", user="ada")).command
    counter.conversation = counter.message
    await counter.worker()(await counter.cause())
    of_message = {"conversation": counter.conversation, "message": counter.message}
    await desk.done("annotation.create", app=counter.app, **of_message)

    scene = Scene(memory, tenant, ("", [tool_call("weather", city="Paris")]), "It rains.")
    await scene.worker()(await scene.asked())

    stage = Outside(memory, tenant)
    nodes = [{"id": "start", "type": "start"}, request("look", "get")]
    await stage.work(await stage.started(graph(nodes, [("start", "look")]), user="ada"))

    words = [commit for noun in PERSONAL - OF_ACCOUNTS for commit in await commits(counter, noun)]
    assert {commit.subject.noun for commit in words} == PERSONAL - OF_ACCOUNTS
    assert {commit.metadata.person for commit in words} == {await counter.desk.person("ada")}


async def commits(counter: Counter, noun: str) -> list[Commit]:
    log = MemoryLog(counter.memory, counter.desk.keys)
    return [
        commit
        async for batch in log.read(EVENTS, 0, follow=False)
        for commit in batch
        if isinstance(commit, Commit) and commit.subject.noun == noun
    ]


async def given_up(counter: Counter, consumer: str, commit: Commit) -> None:
    failure = Failure(consumer, commit.position, str(commit.subject), "KeyError: 'gate'", "x.py:run:7", "ab", 1, 0)
    await GiveUp(counter.desk.repository, counter.desk.live)(commit.metadata, failure, commit)
