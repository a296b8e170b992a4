"""The secret of a toolset in its requests: where it goes, what it is changed for, and where it is withheld."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import quote, quote_plus

import orjson

from adapters.models.withheld import SHORTEST, STARS
from adapters.tools.openapi.exchange import Exchange
from adapters.tools.openapi.request import CONNECTION, Request, is_field, with_query
from handlers.commands.tools import AuthFields
from handlers.ports.tools import ToolError

USUAL_S, EARLY_S = 300.0, 30.0
"""Life of a token whose server does not say it, and time before its end at which another one is fetched, in seconds."""

MOST_TOKENS = 1000
"""Maximum number of tokens that are kept."""

MOST_BYTES = 2**20
"""Maximum size of an answer with a token, in bytes."""

SIGNED = "v1"
"""Form of the header with the end user."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The secret of one toolset of a tenant; `secret` is empty for none."""

    tenant: str
    toolset: str
    fields: AuthFields
    secret: str = field(repr=False)

    @property
    def names(self) -> list[tuple[str, str]]:
        """Place and name, in lower case, of the parameters that it fills in."""
        found = [("header", "authorization")] if self.fields.type in ("basic", "bearer", "client_credentials") else []
        if self.fields.type in ("header", "query", "cookie"):
            found.append((self.fields.type, self.fields.name.lower()))
        if self.fields.user_header:
            found.append(("header", self.fields.user_header.lower()))
        return found

    @property
    def needed(self) -> bool:
        """True if requests carry the secret, or a signature by it."""
        return self.fields.type != "none" or self.fields.user_header is not None

    def check(self) -> None:
        """Raises: ToolError when its settings lead to no request."""
        if self.needed and not self.secret:
            raise ToolError("unauthorized", "The toolset has no secret, which its `auth` needs.")
        if taken := sorted({name for place, name in self.names if place == "header"} & CONNECTION):
            raise ToolError("unsupported", f"The header {taken[0]} is not for secrets: it belongs to the connection.")

    def apply(self, request: Request, token: str) -> Request:
        """The request with the secret, or with the token that it was changed for. Raises: ToolError."""
        fields, headers = self.fields, dict(request.headers)
        match fields.type:
            case "none":
                return request
            case "query":
                return request._replace(url=with_query(request.url, fields.name, self.secret))
            case "cookie":
                cookie = f"{fields.name}={self.secret}"
                headers["Cookie"] = f"{headers['Cookie']}; {cookie}" if "Cookie" in headers else cookie
            case "header":
                headers[fields.name] = fields.prefix + self.secret
            case "basic":
                headers["Authorization"] = f"Basic {_basic(self.secret)}"
            case "bearer":
                headers["Authorization"] = f"Bearer {self.secret}"
            case "client_credentials":
                headers["Authorization"] = f"Bearer {token}"
        if not all(map(is_field, headers.values())) or (fields.type == "cookie" and ";" in self.secret):
            raise ToolError("unauthorized", "The secret of the toolset cannot be sent: it is not one line of ASCII.")
        return request._replace(headers=headers)

    def signed(self, user: str, call: str, at: int) -> str:
        """The value of the header with the end user: form, user, time in seconds, call, and their signature in hex."""
        said = f"{SIGNED},{quote(user, safe='')},{at},{call}"
        signature = hmac.new(self.secret.encode(), said.encode(), hashlib.sha256).hexdigest()
        return f"{said},{signature}"

    def withheld(self, token: str = "") -> Withheld:
        secrets = {self.secret, token}
        if self.fields.type == "basic":
            secrets |= {_basic(self.secret), self.secret.partition(":")[2]}
        return Withheld(secrets)


class Withheld:
    """Puts stars in place of secrets, in all the ways in which they may be written."""

    def __init__(self, secrets: Collection[str]) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= SHORTEST
            for form in (secret, *_as_json(secret), quote(secret, safe=""), quote_plus(secret))
        }
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, STARS)
        return text

    def bytes(self, data: bytes) -> bytes:
        """Bytes of a file, as many as before."""
        for form in map(str.encode, self._forms):
            data = data.replace(form, b"*" * len(form))
        return data


@dataclass(slots=True)
class Tokens:
    """Tokens that secrets were changed for, until they expire."""

    exchange: Exchange
    _known: dict[tuple[str, ...], tuple[float, str]] = field(default_factory=dict)
    _turns: defaultdict[tuple[str, ...], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def get(self, credential: Credential, *, stale: str = "") -> str:
        """The token of a toolset, but not `stale`, which its server refused; empty where it needs none.

        Raises: ToolError, Refused.
        """
        fields = credential.fields
        if fields.type != "client_credentials":
            return ""
        digest = hashlib.sha256(credential.secret.encode()).hexdigest()
        key = (credential.tenant, credential.toolset, str(fields.token_url), fields.client_id, fields.scope, digest)
        async with self._turns[key]:
            until, token = self._known.get(key, (0.0, ""))
            if monotonic() >= until or token == stale:
                self._known.pop(key, None)
                token, life_s = await self._fetched(credential)
                if len(self._known) >= MOST_TOKENS:
                    oldest = next(iter(self._known))
                    del self._known[oldest]
                    self._turns.pop(oldest, None)
                self._known[key] = monotonic() + max(life_s - EARLY_S, life_s / 2), token
            return token

    async def _fetched(self, credential: Credential) -> tuple[str, float]:
        """A token and its life in seconds. The client is named in a header, else in the form, as servers differ.

        Raises: ToolError, Refused.
        """
        fields, secret = credential.fields, credential.secret
        asked = {"grant_type": "client_credentials", **({"scope": fields.scope} if fields.scope else {})}
        named = {**asked, "client_id": fields.client_id, "client_secret": secret}
        basic = f"Basic {_basic(f'{quote_plus(fields.client_id)}:{quote_plus(secret)}')}"
        for form, headers in ((asked, {"Authorization": basic}), (named, {})):
            content = "&".join(f"{name}={quote_plus(value)}" for name, value in form.items()).encode()
            sent = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded", **headers}
            answer = await self.exchange(
                credential.tenant, Request("POST", str(fields.token_url), sent, content), MOST_BYTES
            )
            if answer.status not in (400, 401):
                break
        found = _json(answer.data)
        token = found.get("access_token")
        if answer.status != 200 or not isinstance(token, str) or not is_field(token):
            code = "unauthorized" if answer.status in (200, 400, 401, 403) else "server_error"
            fault = credential.withheld().text(str(found.get("error", ""))[:100])
            raise ToolError(code, f"The server of tokens gave none: status {answer.status} {fault}".strip() + ".")
        life_s = found.get("expires_in")
        return token, float(life_s) if isinstance(life_s, int | float) and 0 < life_s < 1e9 else USUAL_S


def _as_json(text: str) -> list[str]:
    """A text within JSON, in both ways that other letters than ASCII are written."""
    return [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]


def _json(data: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _basic(text: str) -> str:
    return b64encode(text.encode()).decode()
