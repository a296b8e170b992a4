"""Filters behind an address of a provider, in the form of Dify's API extensions for moderation.

The request is `{"point": "app.moderation.input", "params": {app_id, inputs, query}}` or `{"point":
"app.moderation.output", "params": {app_id, text}}`. The answer is `{"flagged": true or false}`, with the changed
`inputs`, `query` or `text` where the server changes them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import httpx2
import orjson

from adapters.egress.client import Egress, GuardedClient
from adapters.models.faults import WITHHELD, fault_of
from adapters.models.registry import Registered, Unseal
from adapters.models.server import address, bearer, host_of, unsendable
from adapters.models.withheld import withheld
from adapters.tracing import requesting
from domain.models.provider import choose
from handlers.ports.filters import Check, Filter, Finding
from handlers.ports.models import ModelError

CONNECT_S = 5.0
"""Time limit of a connection, in seconds."""

MOST_BYTES = 1024 * 1024
"""Maximum size of an answer, in bytes: it may repeat the question and the inputs."""

CLIENTS = 256
"""Maximum number of clients that are kept open."""


class TenantFilters:
    """Filters by provider; connections stay open until closed."""

    def __init__(self, registered: Registered, unseal: Unseal, egress: Egress) -> None:
        self._registered = registered
        self._unseal = unseal
        self._egress = egress
        self._clients: dict[tuple[str, str], GuardedClient] = {}

    async def get(self, tenant: str, provider: str) -> Filter:
        found = await self._registered(tenant, provider)
        if found is None or found.deleted:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        credential = choose(found.credentials, {}, 0, random.random())
        key = self._unseal(tenant, credential["sealed_key"]) if credential and credential["sealed_key"] else ""
        server = tenant, address(found.base_url)
        if (client := self._clients.pop(server, None)) is None:
            client = self._egress.client(tenant, connect_s=CONNECT_S)
        self._clients[server] = client
        if len(self._clients) > CLIENTS:
            await self._clients.pop(next(iter(self._clients))).aclose()
        return FilterApi(client, found.base_url, key)

    async def close(self) -> None:
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.aclose() for client in clients))


class FilterApi:
    """The filter at one address. The key is never part of an error."""

    def __init__(self, client: GuardedClient, url: str, key: str) -> None:
        """Raises: ModelError `unreachable` when the address is invalid."""
        self._client = client
        self._url = url
        self._key = key
        self._address = address(url)
        self.server = host_of(self._address)

    async def check(self, check: Check) -> Finding:
        if fault := unsendable(self._key):
            raise fault.error
        headers = {"Content-Type": "application/json", **bearer(self._key)}
        answering = False
        try:
            with requesting("POST", "/", self._address):
                content = orjson.dumps(request(check))
                async with self._client.stream("POST", self._url, content=content, headers=headers) as response:
                    answering = True
                    body = await _body(response)
        except httpx2.HTTPError as error:
            raise self._error(error, answering=answering) from None
        if response.status_code >= 300:
            raise self._refused(response.status_code, body)
        return read(withheld(body.decode(errors="replace"), self._key), check)

    def _error(self, error: httpx2.HTTPError, *, answering: bool) -> ModelError:
        internal = self._client.internal
        return fault_of(error, self._address, self._key, answering=answering, begun=False, internal=internal).error

    def _refused(self, status: int, body: bytes) -> ModelError:
        said = WITHHELD if self._client.internal else withheld(body[:200].decode(errors="replace"), self._key)
        code = "unauthorized" if status in (401, 403) else "server_error" if status >= 500 else "bad_request"
        return ModelError(code, f"{self._address} answered with status {status}: {' '.join(said.split())}")


async def _body(response: httpx2.Response) -> bytes:
    """Raises: ModelError `too_large`."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise ModelError("too_large", f"The filter's answer has more than {MOST_BYTES:,} bytes.")
    return bytes(body)


def request(check: Check) -> dict[str, Any]:
    if check.where == "output":
        return {"point": "app.moderation.output", "params": {"app_id": check.app, "text": check.texts["text"]}}
    inputs = {name.removeprefix("inputs."): text for name, text in check.texts.items() if name != "query"}
    params = {"app_id": check.app, "inputs": inputs, "query": check.texts["query"]}
    return {"point": "app.moderation.input", "params": params}


def read(body: str, check: Check) -> Finding:
    """The verdict in an answer. Raises: ModelError `server_error` when there is none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(flagged := answer.get("flagged"), bool):
        raise ModelError("server_error", "The filter's answer has no field flagged that is true or false.")
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
