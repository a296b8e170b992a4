"""Offers an agent its tools: those of its toolsets, under names that a model can call."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
import structlog

from domain.chat.app import Configuration, ToolChoice
from domain.tools.tool import BUILTIN, Definition
from domain.tools.toolset import Toolset
from handlers.ports.log import Blobs
from handlers.ports.models import Tool
from handlers.ports.tools import Toolbox, Toolboxes, ToolError
from handlers.repository import Repository

log = structlog.get_logger(__name__)

MOST_TOOLS = 128
"""Maximum number of tools that a model is offered: servers take no more."""

LONGEST_NAME = 64
"""Maximum length of a tool's name, in characters: servers take no longer one."""

DESCRIPTIONS = 32_000
"""Maximum length of all descriptions, in characters; longer ones are cut to the same length."""

LISTS = 200
"""Maximum number of lists of tools that are kept in memory."""

OWN = (BUILTIN, "dataset", "sql")
"""Kinds of toolsets whose schemas are ours, without patterns: arguments are checked by them in the worker."""

SEARCH = "search_knowledge"
"""The built-in tool that searches the knowledge bases of an app."""

CODE = "code"
"""The built-in tool that runs a program: an app has it only by its name."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that an agent may call by its `name`; `waits` says why a call waits for a person, empty if none does."""

    name: str
    definition: Definition
    toolset: str
    kind: str
    digest: str
    toolbox: Toolbox
    waits: str

    @property
    def tool(self) -> Tool:
        return Tool(self.name, self.definition["description"], self.definition["parameters"])

    @property
    def has_own_schema(self) -> bool:
        return self.kind in OWN

    @property
    def server(self) -> str:
        """The address that it is called at, as `host:port`; empty for one within the process."""
        return self.definition.get("server", self.toolbox.server)


@dataclass(frozen=True, slots=True)
class Offer:
    repository: Repository
    blobs: Blobs
    toolboxes: Toolboxes
    lists: dict[tuple[str, str], Sequence[Definition]] = field(default_factory=dict)

    async def __call__(self, tenant: str, configuration: Configuration) -> dict[str, Offered]:
        """The tools of an agent, by the names that its model is given. A toolset that is not there offers none.

        Raises: Unavailable.
        """
        agent = configuration["features"]["agent"]
        choices = list(agent["tools"]) if agent else []
        if configuration["datasets"] and not any(_searches(choice) for choice in choices):
            choices.append(ToolChoice(toolset=BUILTIN, tools=[SEARCH], approve=None, digest=None))
        approve = agent["approve"] if agent else "destructive"
        found = await asyncio.gather(*(self._of(tenant, choice, approve) for choice in choices))
        every = [each for offered in found for each in offered]
        if not configuration["datasets"]:
            every = [each for each in every if (each.kind, each.definition["name"]) != (BUILTIN, SEARCH)]
        return dict(_named(_fitting(every[:MOST_TOOLS])))

    async def one(self, tenant: str, toolset: str, tool: str) -> Offered | None:
        """A tool of a toolset by its name, which waits for no person; None where there is none. Raises: Unavailable."""
        choice = ToolChoice(toolset=toolset, tools=[tool], approve="never", digest=None)
        return next(iter(await self._of(tenant, choice, "never")), None)

    async def _of(self, tenant: str, choice: ToolChoice, approve: str) -> list[Offered]:
        toolset = None
        if choice["toolset"] != BUILTIN:
            toolset = await self.repository.get(Toolset, tenant, choice["toolset"])
            if toolset is None or toolset.deleted or toolset.digest is None:
                log.warning("agent.no_toolset", tenant=tenant, toolset=choice["toolset"])
                return []
        try:
            toolbox = await self.toolboxes.get(tenant, toolset)
        except ToolError as error:
            log.warning("agent.no_toolset", tenant=tenant, toolset=choice["toolset"], reason=error.reason)
            return []
        digest = (toolset.digest if toolset else None) or ""
        tools = await self._list(tenant, digest) if toolset else (await toolbox.list()).tools
        allowed = await self._allowed(tenant, choice["digest"], digest)
        rule = choice["approve"] or approve
        return [
            Offered(
                tool["name"],
                tool,
                choice["toolset"],
                toolset.kind if toolset else BUILTIN,
                digest,
                toolbox,
                _waits(tool, rule, allowed),
            )
            for tool in tools
            if _chosen(choice, tool)
        ]

    async def _list(self, tenant: str, digest: str) -> Sequence[Definition]:
        """The tools in a list that was stored."""
        key = tenant, digest
        if (known := self.lists.get(key)) is None:
            if len(self.lists) >= LISTS:
                del self.lists[next(iter(self.lists))]
            known = self.lists[key] = orjson.loads(await self.blobs.get(tenant, digest))
        return known

    async def _allowed(self, tenant: str, then: str | None, now: str) -> Mapping[str, Definition] | None:
        """The tools as they were when the app was configured; None where they are the same."""
        if then is None or then == now:
            return None
        return {tool["name"]: tool for tool in await self._list(tenant, then)}


def _chosen(choice: ToolChoice, tool: Definition) -> bool:
    if choice["tools"] is None:
        return (choice["toolset"], tool["name"]) != (BUILTIN, CODE)
    return tool["name"] in choice["tools"]


def _searches(choice: ToolChoice) -> bool:
    return choice["toolset"] == BUILTIN and (choice["tools"] is None or SEARCH in choice["tools"])


def _waits(tool: Definition, rule: str, allowed: Mapping[str, Definition] | None) -> str:
    if rule == "always" or (rule == "destructive" and tool["destructive"]):
        return "approval"
    return "changed" if allowed is not None and allowed.get(tool["name"]) != tool else ""


def _named(offered: Sequence[Offered]) -> Iterator[tuple[str, Offered]]:
    """The tools with names that servers take: of two with one name, each gets the name of its toolset before it."""
    plain = [_plain(each.definition["name"]) for each in offered]
    used: set[str] = set()
    for each, name in zip(offered, plain, strict=True):
        if plain.count(name) > 1:
            name = _plain(f"{each.toolset}_{name}")
        number = 1
        while (unique := name if number == 1 else f"{name[: LONGEST_NAME - 4]}_{number}") in used:
            number += 1
        used.add(unique)
        yield unique, replace(each, name=unique)


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:LONGEST_NAME] or "tool"


def _fitting(offered: Sequence[Offered]) -> list[Offered]:
    """The tools with descriptions and schemas that fit together: the longest descriptions are cut first."""
    lengths = sorted(len(each.definition["description"]) for each in offered)
    rest, longest = DESCRIPTIONS, DESCRIPTIONS
    for place, length in enumerate(lengths):
        longest = rest // (len(lengths) - place)
        if length > longest:
            break
        rest -= length
    else:
        return list(offered)
    return [
        each
        if len(each.definition["description"]) <= longest
        else replace(each, definition={**each.definition, "description": each.definition["description"][:longest]})
        for each in offered
    ]
