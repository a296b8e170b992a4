"""The tool `search_knowledge`: passages of knowledge bases, numbered and cited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.aggregate import Rejection
from domain.log import commit_id
from domain.tools.tool import Definition
from handlers.ports.tools import Invocation, Listing, Result, ToolError
from handlers.retrieval.retrieve import Question, Retrieve
from handlers.tools.offer import SEARCH

MOST = 20
"""Maximum number of passages of a search."""


def _definition(description: str) -> Definition:
    return Definition(
        name=SEARCH,
        label="Knowledge",
        description=description,
        parameters={
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 1, "description": "What is searched, in a few words"},
                "top_k": {"type": "integer", "minimum": 1, "maximum": MOST, "description": "Number of passages"},
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        destructive=False,
        idempotent=True,
    )


SEARCH_KNOWLEDGE = _definition(
    "Search the knowledge bases of the app. The result are numbered passages: after each statement that rests on one, "
    "put its number in brackets, like [1]."
)


@dataclass(frozen=True, slots=True)
class SearchKnowledge:
    retrieve: Retrieve

    async def __call__(self, invocation: Invocation) -> Result:
        """Raises: ToolError, Unavailable."""
        return await search(self.retrieve, invocation, invocation.configuration["datasets"])


@dataclass(frozen=True, slots=True)
class DatasetToolbox:
    """A Toolbox that searches one knowledge base."""

    retrieve: Retrieve
    description: str
    settings: dict[str, Any]
    server = ""

    async def list(self) -> Listing:
        what = self.description.strip() or "Search a knowledge base."
        return Listing([_definition(f"{what} Cite its numbered passages, like [1].")])

    async def call(self, invocation: Invocation) -> Result:
        if invocation.tool["name"] != SEARCH:
            raise ToolError("not_found", f"There is no tool {invocation.tool['name']!r} of a knowledge base.")
        top_k = invocation.arguments.get("top_k", self.settings["top_k"])
        return await search(self.retrieve, invocation, [self.settings["dataset"]], top_k)


async def search(
    retrieve: Retrieve, invocation: Invocation, datasets: Sequence[str], top_k: int | None = None
) -> Result:
    """Search as the app does, and record the retrieval. Raises: ToolError, Unavailable."""
    if not datasets:
        raise ToolError("unsupported", "The app has no knowledge base.")
    given, configuration = invocation.arguments, invocation.configuration
    top_k = given.get("top_k", top_k)
    how = {**configuration["retrieval"], **({"top_k": top_k} if top_k else {})}
    cause = await retrieve.take_over(invocation.cause.within(invocation.id))
    question = Question(
        commit_id(invocation.id, "retrieve"),
        cause,
        given["query"],
        list(datasets),
        how,  # type: ignore[arg-type]
        configuration["model"],
    )
    try:
        found = await retrieve.find(question)
    except Rejection as rejection:
        raise ToolError(rejection.code, rejection.message) from None
    await found.record()
    if not found.hits:
        return Result("Nothing was found.")
    return Result(passages=found.hits, names=found.names)
