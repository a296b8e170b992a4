"""Filters behind an address of a provider, in the form of Dify's API extensions for moderation.

The request is `{"point": "app.moderation.input", "params": {app_id, inputs, query}}` or `{"point":
"app.moderation.output", "params": {app_id, text}}`. The answer is `{"flagged": true or false}`, with the changed
`inputs`, `query` or `text` where the server changes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from adapters.egress.client import Egress
from adapters.models.server import PATIENCE, ModelServer, Patience
from handlers.ports.filters import Check, Finding
from handlers.ports.outages import Outages

MOST_BYTES = 1024 * 1024
"""Maximum size of an answer, in bytes: it may repeat the question and the inputs."""


class FilterApi:
    """The filter at one address."""

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the address is invalid."""
        path = "/" if url.partition("?")[0].endswith("/") else ""
        self._at = ModelServer(egress, tenant, url, key, patience, path, outages)
        self.server, self.close, self.rest = self._at.name, self._at.close, self._at.rest

    async def check(self, check: Check) -> Finding:
        return await self._at.ask(lambda: self._at.post(request(check)), lambda answer: read(answer, check), MOST_BYTES)


def request(check: Check) -> dict[str, Any]:
    if check.where == "output":
        return {"point": "app.moderation.output", "params": {"app_id": check.app, "text": check.texts["text"]}}
    inputs = {name.removeprefix("inputs."): text for name, text in check.texts.items() if name != "query"}
    params = {"app_id": check.app, "inputs": inputs, "query": check.texts["query"]}
    return {"point": "app.moderation.input", "params": params}


def read(body: str, check: Check) -> Finding:
    """The verdict in an answer. Raises: ValueError when there is none."""
    answer = orjson.loads(body)
    if not isinstance(answer, dict) or not isinstance(flagged := answer.get("flagged"), bool):
        raise ValueError("an answer without a field flagged that is true or false.")
    return Finding(flagged, dict(_changed(answer, check)) if flagged else {})


def _changed(answer: Mapping[str, Any], check: Check) -> list[tuple[str, str]]:
    inputs = answer.get("inputs")
    given = {f"inputs.{name}": text for name, text in inputs.items()} if isinstance(inputs, dict) else {}
    given |= {name: answer.get(name) for name in ("query", "text")}
    return [
        (name, text)
        for name, text in given.items()
        if isinstance(text, str) and "\0" not in text and text != check.texts.get(name, text)
    ]
