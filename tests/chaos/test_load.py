from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from domain.aggregate import Rejection, new_id
from handlers.commands.fields import MAX_PAYLOAD, parse
from handlers.routes import ROUTES
from tests.chaos.load import Made, Step, load

STEPS = list(islice(load(3, 0), 800))


def test_the_same_seed_makes_the_same_commands() -> None:
    assert list(islice(load(3, 0), 800)) == STEPS
    assert list(islice(load(3, 1), 20)) != STEPS[:20]
    assert list(islice(load(4, 0), 20)) != STEPS[:20]


def test_a_command_builds_on_earlier_ones_only() -> None:
    for place, step in enumerate(STEPS):
        assert step.number == place
        assert all(number <= place for number in step.needs)
        assert step.again is None or step.again < place


def test_every_id_has_a_chance_of_its_own() -> None:
    assert len({step.chance for publisher in range(4) for step in islice(load(3, publisher), 100)}) == 400


def filled(value: Any) -> Any:
    match value:
        case Made():
            return new_id()
        case dict():
            return {name: filled(inner) for name, inner in value.items()}
        case list():
            return [filled(inner) for inner in value]
    return value


def well_formed(step: Step) -> bool:
    body = orjson.dumps(filled(step.payload))
    assert len(body) < MAX_PAYLOAD
    try:
        parse(ROUTES[step.name].command, body)
    except (Rejection, KeyError):
        return False
    return True


def first_ones() -> Iterator[Step]:
    return (step for step in STEPS if step.again is None)


def test_the_load_is_mixed() -> None:
    names = Counter(step.name for step in first_ones() if well_formed(step))
    nouns = {name.partition(".")[0] for name in names}
    assert nouns == {"app", "dataset", "document", "message", "conversation", "provider"}
    assert len(names) >= 15
    assert names["message.send"] == max(names.values())


def test_some_commands_are_invalid_some_come_again_and_some_are_given_up() -> None:
    assert 5 < sum(not well_formed(step) for step in first_ones()) < 80
    assert 20 < sum(step.again is not None for step in STEPS) < 120
    assert 20 < sum(step.tries is not None for step in STEPS) < 160


def test_some_texts_are_long_and_some_files_are_broken() -> None:
    uploads = [step.payload for step in first_ones() if step.name == "document.upload"]
    assert any(len(upload["text"]) > 40_000 for upload in uploads)
    assert any(upload["name"].endswith(".pdf") for upload in uploads)
