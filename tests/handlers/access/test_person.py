"""Words of a person are recorded with that person, by commands and by works: without one, nothing seals them."""

from __future__ import annotations

from domain.access.end_user import person_id
from domain.log import EVENTS, Commit
from handlers.models.model_calls import ModelCalls
from handlers.models.replay import ReplayCall
from handlers.ports.models import ModelError
from handlers.retrieval.query_datasets import QueryDatasets
from handlers.routes import ROUTES, Route
from handlers.work.dead_letters import Failure, GiveUp
from ops.asyncapi import events
from tests.handlers.chat.test_answer import Counter
from tests.memory import Memory, MemoryLog

PERSONAL = {noun for noun, event in events().values() if event.PERSONAL}
"""The nouns with words of people."""

OF_SERVICES = {"account.create_service"}
"""Commands that make such a noun without a person."""

OF_ACCOUNTS = {"account", "door"}
"""The nouns whose person is an account, or the month of a report, not an end user."""

BY_CAUSE = {"dead_letter", "model_call", "retrieval"}
"""The nouns that no command makes: their person is that of the commit that led to them."""


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
    await ReplayCall(desk.repository, ModelCalls(desk.repository), counter.speaker)(requested)

    await desk.send("dataset.test", datasets=[dataset], query="When?", user="ada")
    [tested] = await commits(counter, "dataset_query")
    await QueryDatasets(desk.repository, counter.retrieve())(tested)

    words = [commit for noun in PERSONAL - OF_ACCOUNTS for commit in await commits(counter, noun)]
    assert {commit.subject.noun for commit in words} == PERSONAL - OF_ACCOUNTS
    assert {commit.metadata.person for commit in words} == {person_id("ada")}


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
