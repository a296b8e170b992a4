"""The load: what each publisher sends, without end. The same seed makes the same commands, but for the time in ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

Payload = dict[str, Any]

PAUSE_S = 0.5
"""Between two commands of a publisher, at most."""


class Made(NamedTuple):
    """Stands in a payload for the id of an earlier command of the same publisher."""

    number: int


@dataclass(frozen=True, slots=True)
class Step:
    """A command; `again` is the number of an earlier one that is sent once more in its place.

    `tries` is how often it is published without an acknowledgement before the publisher gives it up, None is never.
    """

    number: int
    name: str
    payload: Payload
    chance: bytes
    """Ten bytes for its id."""
    pause: float
    tries: int | None = None
    again: int | None = None

    @property
    def needs(self) -> set[int]:
        """The numbers of the commands whose ids are in the payload."""
        return {part.number for part in _parts(self.payload) if isinstance(part, Made)}


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _parts(inner)


@dataclass
class _Talk:
    """A conversation: the numbers of its first message, of its app, and of all its messages."""

    first: int
    app: int
    messages: list[int]


@dataclass
class _World:
    """Objects that exist, as far as a publisher knows."""

    random: Random
    number: int = 0
    bare: list[int] = field(default_factory=list)
    """Apps without a configuration."""
    apps: list[int] = field(default_factory=list)
    datasets: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    talks: list[_Talk] = field(default_factory=list)
    providers: list[str] = field(default_factory=list)

    def some(self, things: list[Any]) -> Any:
        return self.random.choice(things)

    def taken(self, things: list[Any]) -> Any:
        """One of the things, which is gone then."""
        return things.pop(self.random.randrange(len(things)))


Command = tuple[str, Payload]


def load(seed: int, publisher: int) -> Iterator[Step]:
    """The steps of the n-th publisher."""
    random = Random(f"load {seed} {publisher}")
    world = _World(random)
    opening = [_create_dataset, _upload, _upload, _create_app, _configure]
    while True:
        verbs = [verb for verb in _VERBS if verb.possible(world)]
        verb = opening.pop(0) if opening else random.choices(verbs, [verb.weight for verb in verbs])[0].do
        again = random.randrange(world.number) if not opening and random.random() < 0.06 else None
        name, payload = verb(world) if again is None else ("", {})
        yield Step(
            number=world.number,
            name=name,
            payload=payload,
            chance=random.randbytes(10),
            pause=random.uniform(0, PAUSE_S),
            tries=2 if random.random() < 0.1 else None,
            again=again,
        )
        world.number += 1


def _create_app(world: _World) -> Command:
    world.bare.append(world.number)
    return "app.create", {"name": f"app {world.number}", "description": _sentence(world.random)}


def _configure(world: _World) -> Command:
    """With a model that answers or, now and then, with one that cannot be reached."""
    if world.bare:
        world.apps.append(world.bare.pop())
        app = world.apps[-1]
    else:
        app = world.some(world.apps)
    payload = {"app": Made(app), "prompt": f"Be {world.number}."}
    if world.providers and world.random.random() < 0.2:
        model = {"provider": world.some(world.providers), "name": "unreachable"}
        return "app.configure", {**payload, "model": model}
    return "app.configure", {**payload, "datasets": [Made(dataset) for dataset in world.datasets[-2:]]}


def _delete_app(world: _World) -> Command:
    return "app.delete", {"app": Made(world.taken(world.apps))}


def _create_dataset(world: _World) -> Command:
    world.datasets.append(world.number)
    return "dataset.create", {"name": f"dataset {world.number}"}


def _delete_dataset(world: _World) -> Command:
    return "dataset.delete", {"dataset": Made(world.taken(world.datasets))}


def _upload(world: _World) -> Command:
    world.documents.append(world.number)
    text = _text(world.random)
    name = f"{world.number}.txt" if text else f"{world.number}.pdf"
    if not text:
        world.broken = [*world.broken[-9:], world.number]
    return "document.upload", {"dataset": Made(world.some(world.datasets)), "name": name, "text": text or "no PDF"}


def _delete_document(world: _World) -> Command:
    return "document.delete", {"document": Made(world.taken(world.documents))}


def _retry_document(world: _World) -> Command:
    return "document.retry", {"document": Made(world.some(world.broken))}


def _ask(world: _World) -> Command:
    app = world.some(world.apps)
    world.talks = [*world.talks[-19:], _Talk(world.number, app, [world.number])]
    return "message.send", {"app": Made(app), "query": _sentence(world.random)}


def _ask_on(world: _World) -> Command:
    talk = world.some(world.talks)
    talk.messages.append(world.number)
    query = _sentence(world.random)
    return "message.send", {"app": Made(talk.app), "conversation": Made(talk.first), "query": query}


def _message(world: _World, *, last: bool = False) -> Payload:
    talk = world.some(world.talks)
    return {"conversation": Made(talk.first), "message": Made(talk.messages[-1] if last else world.some(talk.messages))}


def _rate(world: _World) -> Command:
    rating = world.some(["like", "dislike"])
    return "message.rate", {**_message(world), "rating": rating, "content": f"{world.number}"}


def _stop(world: _World) -> Command:
    return "message.stop", _message(world, last=True)


def _retry_message(world: _World) -> Command:
    return "message.retry", _message(world)


def _rename(world: _World) -> Command:
    return "conversation.rename", {"conversation": Made(world.some(world.talks).first), "name": f"talk {world.number}"}


def _delete_talk(world: _World) -> Command:
    return "conversation.delete", {"conversation": Made(world.taken(world.talks).first)}


def _register(world: _World) -> Command:
    name = f"provider-{world.random.randrange(5)}"
    world.providers.append(name)
    return "provider.register", {
        "name": name,
        "base_url": f"http://127.0.0.1:9/{world.number}",
        "key": "a key",
        "check": False,
    }


def _remove(world: _World) -> Command:
    return "provider.remove", {"provider": world.taken(world.providers)}


def _invalid(world: _World) -> Command:
    commands: list[Command] = [
        ("app.create", {"name": 7}),
        ("app.create", {"name": "  "}),
        ("app.configure", {"app": "nobody", "retrieval": {"top_k": 0}}),
        ("document.upload", {"dataset": Made(world.number), "name": "x.txt", "text": "The dataset is no dataset."}),
        ("message.send", {"app": Made(0), "query": "Does a dataset answer?"}),
        ("no.such_command", {}),
    ]
    return world.some(commands)  # type: ignore[no-any-return]


class _Verb(NamedTuple):
    """An action, for when there is something to do it to; `weight` is how often, against the others."""

    weight: int
    do: Callable[[_World], Command]
    possible: Callable[[_World], bool] = lambda world: True


_VERBS = (
    _Verb(16, _ask, lambda world: bool(world.apps)),
    _Verb(18, _ask_on, lambda world: bool(world.talks)),
    _Verb(11, _upload, lambda world: len(world.documents) < 40),
    _Verb(8, _rate, lambda world: bool(world.talks)),
    _Verb(6, _rename, lambda world: bool(world.talks)),
    _Verb(6, _stop, lambda world: bool(world.talks)),
    _Verb(6, _delete_document, lambda world: len(world.documents) > 5),
    _Verb(6, _configure),
    _Verb(4, _create_app, lambda world: not world.bare and len(world.apps) < 8),
    _Verb(2, _delete_app, lambda world: len(world.apps) > 2),
    _Verb(3, _retry_document, lambda world: bool(world.broken)),
    _Verb(3, _retry_message, lambda world: bool(world.talks)),
    _Verb(4, _register),
    _Verb(2, _remove, lambda world: bool(world.providers)),
    _Verb(4, _invalid),
    _Verb(2, _create_dataset, lambda world: len(world.datasets) < 8),
    _Verb(1, _delete_dataset, lambda world: len(world.datasets) > 2),
    _Verb(2, _delete_talk, lambda world: bool(world.talks)),
)


_NOUNS = """river stone water gate mill wheel channel spring winter harvest grain miller flood bridge valley stream
turbine sluice weir pond meadow village road market bread flour timber iron bell lantern rope barrel wagon"""
_VERB = "carries holds turns feeds crosses keeps mends opens closes measures remembers follows"
_WORDS, _DEEDS = _NOUNS.split(), _VERB.split()


def _sentence(random: Random) -> str:
    one, two, three = random.sample(_WORDS, 3)
    return f"The {one} {random.choice(_DEEDS)} the {two} behind the {three}."


def _text(random: Random) -> str:
    """A few sentences, now and then many pages, or nothing."""
    size = random.random()
    sentences = 0 if size < 0.06 else random.randrange(1000, 3000) if size > 0.97 else random.randrange(3, 40)
    return "\n\n".join(
        " ".join(_sentence(random) for _ in range(min(8, sentences - start))) for start in range(0, sentences, 8)
    )
