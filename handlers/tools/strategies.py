"""Strategies of agents: how a model is asked to call tools, and how its answer is read.

A strategy is pure. The rounds so far are written in its own form each time, whichever strategy they were made with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

from domain.models.piece import Piece
from handlers.models.arguments import arguments_of, bare
from handlers.models.prompt import Draft, Part, estimate, plain
from handlers.ports.models import ChatRequest, Tool, ToolCall

Name = Literal["tools", "schema", "react"]

STOP = "Observation:"
"""Begins the result of an action in `react`; a model that writes it has begun to invent one."""

LAST = "Answer now, without another call of a tool, from what the calls so far have shown."

LONGEST_ESCAPE = 12
"""Characters of the longest escape in JSON: a pair of surrogates."""

_TAGS = re.compile(r"<\|?(?:tool_call|function_call|function=)|\[TOOL_CALLS\]")
"""Marks that a model writes where its server does not read its calls of tools."""


class Read(NamedTuple):
    """The reading of an answer: calls of tools, or none where `said` is the answer. Text before calls is a thought.

    `fault` says how it breaks the form of the strategy; `said` is then no answer.
    """

    said: str
    calls: Sequence[ToolCall] = ()
    fault: str = ""


CUT = "\n[The rest does not fit the context window.]"


class Observed(NamedTuple):
    """A call of a tool and its result, as the model is given it.

    `quotes` names the recorded text, empty if it is not quoted. `kept` is the number of characters that fit, None for
    all.
    """

    call: ToolCall
    text: str
    quotes: str = ""
    kept: int | None = None

    def within(self, tokens: int) -> Observed:
        """The result, cut to these tokens by a careful estimate."""
        if estimate(self.text) <= tokens:
            return self
        return self._replace(kept=len(self.text.encode(errors="replace")[: 2 * tokens].decode(errors="ignore")))

    def parts(self) -> list[Part]:
        kept = self.text[: self.kept]
        end = {} if self.kept is None else {"start": 0, "end": self.kept}
        quoted = Part(kept, cast("Piece", {"quotes": self.quotes, **end})) if self.quotes else plain(kept)
        return [quoted] if self.kept is None else [quoted, plain(CUT)]


@dataclass(frozen=True, slots=True)
class Round:
    """A round that has ended: what the model said, with the state that its server wants back, and the results."""

    strategy: Name
    read: Read
    observed: Sequence[Observed]
    state: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to call tools.

    `below` returns the text below the instructions, and `apply` changes the request; both take the tools, and whether
    it is the last round. `read` takes an answer, and the calls that its server found in it. `messages` writes a round.
    """

    name: Name
    below: Callable[[Sequence[Tool], bool], str]
    apply: Callable[[ChatRequest, Sequence[Tool], bool], ChatRequest]
    read: Callable[[str, Sequence[ToolCall]], Read]
    messages: Callable[[Round], list[Draft]]


# tools: the model's own calls


def _own_below(tools: Sequence[Tool], last: bool) -> str:
    return LAST if last else ""


def _own_tools(request: ChatRequest, tools: Sequence[Tool], last: bool) -> ChatRequest:
    if not last:
        return replace(request, tools=tools)
    # Some servers refuse messages with calls where no tools are defined.
    called = any(message.tool_calls for message in request.messages)
    return replace(request, tools=tools, tool_choice="none") if called else request


def _own_calls(said: str, calls: Sequence[ToolCall]) -> Read:
    if calls:
        return Read(said, calls)
    if tag := _TAGS.search(said):
        return Read(said, fault=f"The answer has the mark {tag[0]!r} of a call that its server did not read.")
    return Read(said)


def _own_messages(made: Round) -> list[Draft]:
    if not made.observed:
        return _faulty(made)
    state = made.state if made.strategy == "tools" else None
    calls = tuple(each.call for each in made.observed)
    thought = [plain(made.read.said)] if made.read.said else []
    results = [Draft("tool", each.parts(), tool_call_id=each.call.id) for each in made.observed]
    return [Draft("assistant", thought, tool_calls=calls, state=state), *results]


# schema: one JSON object by a schema


def _listed(tools: Sequence[Tool]) -> str:
    return "\n".join(
        f"- {tool.name}: {tool.description} Arguments, by JSON Schema: "
        f"{json.dumps(tool.parameters, ensure_ascii=False)}"
        for tool in tools
    )


def _schema_below(tools: Sequence[Tool], last: bool) -> str:
    if last:
        return LAST + ' Answer with one JSON object: {"answer": "…"}.'
    return (
        "You can call tools. Answer with one JSON object and nothing else: "
        '{"tool": "<name>", "arguments": {…}} to call a tool, whose result you are given then, or '
        '{"answer": "…"} when you know the answer. Call a tool wherever one helps: do not guess.\n\nThe tools:\n'
        + _listed(tools)
    )


def steps(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON Schema of a step: a call of one of the tools, or the answer."""
    return {
        "type": "object",
        "properties": {"step": {"anyOf": [*map(_call, tools), _object({"answer": {"type": "string"}})]}},
        "required": ["step"],
        "additionalProperties": False,
    }


def _call(tool: Tool) -> dict[str, Any]:
    whole = "$ref" not in json.dumps(tool.parameters)  # a reference would not hold within another schema
    return _object({"tool": {"const": tool.name}, "arguments": tool.parameters if whole else {"type": "object"}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _by_schema(request: ChatRequest, tools: Sequence[Tool], last: bool) -> ChatRequest:
    return replace(request, schema=steps(() if last else tools))


def _step(said: str, calls: Sequence[ToolCall]) -> Read:
    try:
        found = arguments_of(bare(said))
    except ValueError as error:
        return Read(cut) if (cut := _cut_answer(said)) else Read(said, fault=str(error))
    step = found.get("step", found)
    if isinstance(step, dict) and isinstance(answer := step.get("answer"), str):
        return Read(answer)
    if isinstance(step, dict) and isinstance(step.get("tool"), str):
        return Read("", [_made_up(step["tool"], step.get("arguments"))])
    return Read(said, fault="The JSON object has neither a tool nor an answer.")


_BEGUN = re.compile(r'\{\s*(?:"step"\s*:\s*\{\s*)?"answer"\s*:\s*(".*)', re.DOTALL)


def _cut_answer(said: str) -> str:
    """The beginning of an answer whose JSON breaks off, as at the maximum of tokens; empty for none."""
    if begun := _BEGUN.fullmatch(bare(said)):
        text = begun[1]
        cuts = [text[:-cut] for cut in range(1, LONGEST_ESCAPE) if text[-cut:].startswith("\\")]
        for each in (text.rstrip("} \r\n\t"), *(f'{cut}"' for cut in (text, *cuts))):
            try:
                answer = str(json.loads(each))
                answer.encode()
            except ValueError:  # it breaks off within an escape, or is no text that breaks off
                continue
            return answer
    return ""


def _schema_messages(made: Round) -> list[Draft]:
    if not made.observed:
        return _faulty(made)
    drafts = []
    for each in made.observed:
        step = {"step": {"tool": each.call.name, "arguments": _loaded(each.call.arguments)}}
        drafts += [Draft("assistant", [plain(json.dumps(step, ensure_ascii=False))]), _result(each, "Result of ")]
    return drafts


# react: one action a round, in words


def _react_below(tools: Sequence[Tool], last: bool) -> str:
    if last:
        return LAST
    return (
        "You can call tools. To call one, write a line with your thought, and then the call as one JSON object after "
        '"Action:", like\n\nThought: I need the weather in Paris.\n'
        'Action: {"action": "get_weather", "action_input": {"city": "Paris"}}\n\n'
        f'Then stop: you are given the result after "{STOP}". When you know the answer, write\n\n'
        'Action: {"action": "Final Answer", "action_input": "the answer"}\n\nThe tools:\n' + _listed(tools)
    )


def _with_stop(request: ChatRequest, tools: Sequence[Tool], last: bool) -> ChatRequest:
    if last:
        return request
    stop = request.parameters.get("stop") or []
    words = [stop] if isinstance(stop, str) else list(stop)
    return replace(request, parameters={**request.parameters, "stop": [*words, STOP]})


def _action(said: str, calls: Sequence[ToolCall]) -> Read:
    said = said.partition(STOP)[0].strip()
    thought, mark, rest = said.partition("Action:")
    text = rest if mark else said.partition("```")[2].lstrip().removeprefix("json").lstrip()
    if not mark and not text.startswith("{"):
        return Read(said.removeprefix("Thought:").strip())  # no action: it is the answer
    start = text.find("{")
    try:
        _, end = json.JSONDecoder().raw_decode(text, start) if start >= 0 else (None, 0)
        found = arguments_of(text[start:end])
    except ValueError as error:
        return Read(said, fault=f"The action is not one JSON object: {error}")
    action, given = found.get("action"), found.get("action_input", {})
    if not isinstance(action, str):
        return Read(said, fault="The action has no name.")
    if action.lower() == "final answer":
        return Read(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))
    return Read(thought.strip().removeprefix("Thought:").strip(), [_made_up(action, given)])


def _react_messages(made: Round) -> list[Draft]:
    if not made.observed:
        return _faulty(made)
    drafts = []
    for each in made.observed:
        action = {"action": each.call.name, "action_input": _loaded(each.call.arguments)}
        thought = f"Thought: {made.read.said}\n" if made.read.said else ""
        said = f"{thought}Action: {json.dumps(action, ensure_ascii=False)}"
        drafts += [Draft("assistant", [plain(said)]), _result(each, STOP + " ", named=False)]
    return drafts


# common


def _faulty(made: Round) -> list[Draft]:
    """A round whose answer broke the form: it is repeated with its fault."""
    advice = f"{made.read.fault} Keep to the form."
    return [Draft("assistant", [plain(made.read.said or "…")]), Draft("user", [plain(advice)])]


def _result(observed: Observed, mark: str, *, named: bool = True) -> Draft:
    above = f"{mark}{observed.call.name}:\n" if named else mark
    return Draft("user", [plain(above), *observed.parts()])


def _made_up(name: str, arguments: Any) -> ToolCall:
    """A call without an id of the model's server; a text stands for the only argument of a tool."""
    return ToolCall("", name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _loaded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


STRATEGIES: Mapping[str, Strategy] = {
    "tools": Strategy("tools", _own_below, _own_tools, _own_calls, _own_messages),
    "schema": Strategy("schema", _schema_below, _by_schema, _step, _schema_messages),
    "react": Strategy("react", _react_below, _with_stop, _action, _react_messages),
}
"""By name, in the order in which a turn falls from one to the next."""


def first(wanted: str, abilities: Mapping[str, bool | None]) -> Name:
    """The strategy that a turn begins with; what is unknown of a model is tried. A plugin's gets earlier calls as
    the model's own."""
    if wanted == "plugin":
        return "tools"
    if wanted != "auto":
        return cast("Name", wanted)
    if abilities.get("tools") is not False:
        return "tools"
    return "schema" if abilities.get("schema") is not False else "react"


def following(strategy: Name) -> Name | None:
    """The strategy that a turn falls to; None after the last."""
    names = list(STRATEGIES)
    at = names.index(strategy) + 1
    return cast("Name", names[at]) if at < len(names) else None
