"""Structured answers: which schemas may be set, what keeps to them, and an answer that does not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from domain.models.model_call import ModelCall
from handlers.commands.response_schema import schema_fault
from handlers.models.structured import fault
from tests.handlers.chat.test_answer import Counter
from tests.memory import Memory

HOUR = {
    "type": "object",
    "properties": {"hour": {"type": "integer", "minimum": 0}, "note": {"$ref": "#/$defs/note"}},
    "required": ["hour"],
    "additionalProperties": False,
    "$defs": {"note": {"type": "string", "pattern": "^[a-z ]*$"}},
}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = of(x=schema)
    return schema


def multiplying(levels: int) -> dict[str, Any]:
    """A schema whose references multiply, each taking six times the one below."""
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 6} for n in range(1, levels + 1)}
    return {**of(x={"$ref": f"#/$defs/d{levels}"}), "$defs": {"d0": {"type": "string"}, **definitions}}


@pytest.mark.parametrize(
    "schema",
    [HOUR, {"type": "object"}, deep(15), of(x={"anyOf": [{"const": 1}, {"enum": ["a", None]}]}), of(x=True)],
)
def test_a_bounded_schema_may_be_set(schema: dict[str, Any]) -> None:
    assert schema_fault(schema) is None


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array"}, "type object"),
        ({}, "type object"),
        (of(x={"type": "text"}), "properties.x.type"),
        (of(x={"$ref": "https://example.com/schema"}), "$defs"),
        (of(x={"$ref": "#"}), "$defs"),
        (of(x={"$ref": "#/$defs/gone"}), "$defs"),
        (of(x={"$ref": 7}), "$defs"),
        ({**of(), "$defs": {"a": {"$ref": "#/$defs/a"}}}, "circles"),
        ({**of(x={"$ref": "#/$defs/a"}), "$defs": {"a": of(y={"$ref": "#/$defs/a"})}}, "circles"),
        ({**of(), "$defs": []}, "$defs"),
        ({**of(), "$id": "x"}, "$id"),
        (of(x={"unevaluatedProperties": False}), "unevaluatedProperties"),
        (of(x={"$dynamicRef": "#a"}), "$dynamicRef"),
        (deep(17), "levels"),
        (multiplying(5), "subschemas"),
        (of(**{f"x{n}": {} for n in range(1001)}), "subschemas"),
        (of(x={"type": "string", "pattern": "(a+)+$"}), "repeat"),
        (of(x={"type": "string", "pattern": "("}), "regular expression"),
        (of(x={"type": "string", "pattern": "a" * 201}), "200"),
        (of(x={"patternProperties": {"(a*)*": {}}}), "repeat"),
        (of(x=7), "object or a boolean"),
        ({"type": "object", "properties": [1]}, "properties"),
        (of(x={"anyOf": {}}), "anyOf"),
    ],
)
def test_what_could_take_long_or_lead_elsewhere_is_refused(schema: dict[str, Any], says: str) -> None:
    began = time.process_time()
    found = schema_fault(schema)
    assert found
    assert says in found
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"hour": 6}', None),
        ('  {"hour": 6, "note": "sharp"}\n', None),
        ('```json\n{"hour": 6}\n```', None),
        ("At six.", "not JSON"),
        ("", "not JSON"),
        ('{"hour": 6', "not JSON"),
        ('{"hour": 6, "hour": 7}', "twice"),
        ('{"hour": NaN}', "NaN"),
        ("[" * 100_000, "not JSON"),
        ("{}", "'hour' is a required property"),
        ('{"hour": "six"}', "hour: "),
        ('{"hour": -1}', "minimum"),
        ('{"hour": 6, "more": 1}', "more"),
        ('{"hour": 6, "note": "7"}', "note"),
        ("[6]", "object"),
    ],
)
def test_answers_are_checked(answer: str, says: str | None) -> None:
    found = fault(HOUR, answer)
    assert (found is None) if says is None else (found and says in found and len(found) <= 500)


class Turns(Counter):
    """A model that says one answer after the other."""

    async def answered(self, *answers: str, **features: Any) -> None:
        await self.desk.send("provider.register", name="lab", base_url="https://lab.example.com/v1")
        model = {"provider": "lab", "name": "small"}
        commit = await self.asked(model=model, features={"response_schema": HOUR, **features})
        said = iter(answers)
        stream = self.speaker.stream

        def next_stream(request: Any) -> Any:
            self.speaker.says = [next(said)]
            return stream(request)

        self.speaker.stream = next_stream  # type: ignore[method-assign]
        await self.worker()(commit)


@pytest.fixture
def turns(memory: Memory, tenant: str) -> Turns:
    return Turns(memory, tenant)


async def test_a_valid_answer_is_recorded_as_it_is(turns: Turns) -> None:
    await turns.answered('{"hour": 6}')
    assert (await turns.state())["answer"] == '{"hour": 6}'
    assert turns.speaker.asked[0].schema == HOUR
    assert turns.frames() == ["retrieved", "token", "answered"]


async def test_a_fence_is_taken_off(turns: Turns) -> None:
    await turns.answered('```json\n{"hour": 6}\n```')
    assert (await turns.state())["answer"] == turns.memory.frames[-1]["answer"] == '{"hour": 6}'


async def test_an_invalid_answer_is_asked_for_once_more_by_a_recorded_call(turns: Turns) -> None:
    await turns.answered("At six.", '{"hour": 6}')
    last = await turns.last()
    assert last["answer"] == '{"hour": 6}'
    assert turns.frames() == ["retrieved", "token", "restarted", "token", "answered"]
    first, second = turns.speaker.asked
    said = [(message.role, message.content) for message in second.messages[len(first.messages) :]]
    assert said[0] == ("assistant", "At six.")
    assert "not JSON" in said[1][1]
    assert second.schema == HOUR
    calls = list(dict.fromkeys(subject.rpartition(".")[2] for subject in turns.subjects("model_call")))
    assert len(calls) == 2
    assert last["model_call"] == calls[1]
    [requested, _] = await turns.desk.events("model_call", calls[1])
    assert isinstance(requested, ModelCall.Requested)
    assert requested.request["response_format"] == {"type": "json_schema", "schema": HOUR}
    assert len(requested.request["messages"]) == len(second.messages)


async def test_an_answer_that_stays_invalid_fails(turns: Turns) -> None:
    await turns.answered("At six.", '{"hour": "six"}')
    state, last = await turns.state(), await turns.last()
    assert (state["status"], state["answer"]) == ("failed", '{"hour": "six"}')
    assert last["code"] == "invalid_answer"
    assert "hour" in last["reason"]
    assert turns.frames()[-1] == "failed"


async def test_what_filters_leave_is_what_must_be_valid(turns: Turns) -> None:
    filter = {"kind": "words", "words": ["6"], "where": "output", "action": "replace", "text": "7"}
    await turns.answered('{"hour": 6}', moderation=[filter])
    assert (await turns.state())["answer"] == '{"hour": 7}'


async def test_a_stop_ends_the_second_answer_too(turns: Turns) -> None:
    waits = asyncio.Event()
    turns.speaker.waits = waits
    answering = asyncio.create_task(turns.answered("At six.", asyncio.Event()))  # type: ignore[arg-type]
    await waits.wait()
    await turns.stop()
    await answering
    assert (await turns.state())["status"] == "stopped"
