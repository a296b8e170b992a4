"""Values and results of runs as they are recorded: large values are blobs, sealed with the key of the person."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import orjson

from domain.log import Commit
from domain.workflows.graph import CONTAINERS
from domain.workflows.node_type import Write
from domain.workflows.record import Result
from domain.workflows.run import FOLDED, Run, Step, Values
from domain.workflows.values import Value, from_json, infer, to_json
from handlers.files import Files

LARGE = 16 * 1024
"""Bytes of JSON over which a value is a blob."""

MOST = 64 * 1024
"""Bytes of JSON over which the largest values of a step are blobs."""


class Unrecordable(Exception):
    """A value that is no JSON, as a text with half a character."""


@dataclass(slots=True)
class Past:
    """All that is recorded of a run."""

    started: Run.Started
    results: list[tuple[Step, Result]] = field(default_factory=list)
    begun: dict[str, datetime] = field(default_factory=dict)
    """Times at which steps began that have not ended."""
    writes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Variables of the conversation that steps assigned, as they are recorded."""
    forms: dict[str, str] = field(default_factory=dict)
    """Times until which its forms wait, by step."""
    elapsed_s: float = 0.0
    """Seconds that it was under way."""
    tokens: int = 0
    exceptions: int = 0


@dataclass(frozen=True, slots=True)
class RunValues:
    """The values of one tenant and person."""

    files: Files
    tenant: str
    person: str | None

    async def put(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The values as they are recorded. Raises: Unrecordable; Erased; Unavailable."""
        plain = {name: to_json(value) for name, value in values.items()}
        try:
            texts = {name: orjson.dumps(value["data"]) for name, value in plain.items()}
        except TypeError as error:
            raise Unrecordable(str(error)) from error
        total = sum(map(len, texts.values()))
        for name in sorted(texts, key=lambda each: -len(texts[each])):
            size = len(texts[name])
            if size <= LARGE and total <= MOST:
                break
            total -= size
            digest = await self.files.put(self.tenant, self.person, "value", texts[name])
            plain[name] = {"type": plain[name]["type"], "blob": digest, "bytes": size}
        return plain

    async def get(self, recorded: Mapping[str, Any]) -> dict[str, Value]:
        """Recorded values. Raises: KeyError where the person was erased; Unavailable."""
        found = await asyncio.gather(*map(self._one, recorded.values()))
        return dict(zip(recorded, found, strict=True))

    async def _one(self, recorded: Mapping[str, Any]) -> Value:
        if (digest := recorded.get("blob")) is None:
            return from_json(recorded)
        data = await self.files.get(self.tenant, self.person, "value", digest)
        return from_json({"type": recorded["type"], "data": orjson.loads(data)})

    async def put_step(
        self, outputs: Mapping[str, Value], inputs: Mapping[str, Any], writes: Sequence[Write], error: str | None
    ) -> Values:
        """The inputs and outputs of a step as they are recorded. Raises: Unrecordable; Erased; Unavailable."""
        values = Values()
        if inputs:
            values["inputs"] = await self.put({name: infer(value) for name, value in inputs.items()})
        if outputs:
            values["outputs"] = await self.put(outputs)
        if writes:
            written = await self.put({str(number): each.value for number, each in enumerate(writes)})
            paths = [list(each.selector) for each in writes]
            values["writes"] = [{"selector": at, "value": on} for at, on in zip(paths, written.values(), strict=True)]
        if error is not None:
            values["error"] = error
        return values

    async def get_result(self, step: Step, values: Values) -> Result:
        """The result that the engine folds of a step that has ended."""
        if step["status"] != "succeeded":
            return Result(step["key"], error=values.get("error", ""), error_type=step.get("error_type", ""))
        outputs = await self.get(values.get("outputs", {}))
        writes = [Write(tuple(each["selector"]), await self._one(each["value"])) for each in values.get("writes", ())]
        return Result(step["key"], outputs, step.get("handle"), tuple(writes))

    async def past(self, commits: Sequence[Commit]) -> Past:
        """Raises: KeyError where the person was erased; Unavailable."""
        past = Past(cast("Run.Started", commits[0].events[0]))
        since: datetime | None = None
        for commit in commits:
            for event in commit.events:
                match event:
                    case Run.Taken():
                        since = event.timestamp
                    case Run.Waiting():
                        past.forms[event.key] = event.until
                    case Run.Stepped():
                        past.elapsed_s += (event.timestamp - since).total_seconds() if since else 0.0
                        since = None if event.paused else event.timestamp
                        for step, values in zip(event.steps, event.values, strict=True):
                            await self._add(past, step, values)
        return past

    async def _add(self, past: Past, step: Step, values: Values) -> None:
        past.tokens += step.get("tokens", 0)
        if assigned := of_conversation(values):
            past.writes.append((step["key"], assigned))
        past.exceptions += step["status"] == "exception"
        if step["status"] == "running":
            past.begun[step["key"]] = datetime.fromisoformat(step["began"])
        elif step["status"] in FOLDED and step["type"] not in CONTAINERS:
            past.results.append((step, await self.get_result(step, values)))


def of_conversation(values: Values) -> dict[str, Any]:
    """The variables of the conversation that a step assigned, by name, as they are recorded."""
    writes = values.get("writes", ())
    return {each["selector"][1]: each["value"] for each in writes if each["selector"][0] == "conversation"}
