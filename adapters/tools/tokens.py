"""Tokens in place of the secrets of toolsets: those that a client gets for its secret, and those of a login."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any, NamedTuple, TypedDict, cast
from urllib.parse import quote_plus, urlencode

import orjson

from adapters.models.withheld import Withheld, base64
from adapters.tools.credential import Credential, Sent
from adapters.tools.exchange import Exchange, Request, is_field
from handlers.ports.tools import ToolError

USUAL_S, EARLY_S = 300.0, 30.0
"""Life of a token whose server does not say it, and time before its end at which another one is fetched, in seconds."""

MOST_TOKENS = 1000
"""Maximum number of tokens that are kept."""

MOST_BYTES = 64 * 2**10
"""Maximum size of an answer with a token, in bytes."""

Renew = Callable[[str, str, str, str, Callable[[str], Awaitable[str]]], Awaitable[str]]
"""Return the secret of a tenant's toolset, and of a person for it, in place of an expired one, which a function may be
asked to change."""


async def never(tenant: str, toolset: str, person: str, expired: str, fetch: Callable[[str], Awaitable[str]]) -> str:
    """Raises: ToolError."""
    raise ToolError("unauthorized", "The login of the toolset has expired.")


class Login(TypedDict):
    """The secret of a toolset with auth `oauth`, as JSON: the tokens of a person's login, and the way to new ones."""

    access_token: str
    refresh_token: str
    expires_at: float
    token_url: str
    client_id: str
    client_secret: str
    method: str
    resource: str


class _Given(NamedTuple):
    """A token, the seconds for which it may be used, and a refresh token, empty for none."""

    token: str
    life_s: float
    refresh: str


@dataclass(slots=True)
class Tokens:
    """Tokens are kept until they expire."""

    exchange: Exchange
    renew: Renew = never
    _known: dict[tuple[str, ...], tuple[float, str]] = field(default_factory=dict)
    _turns: defaultdict[tuple[str, ...], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def sent(self, credential: Credential, user: str = "", call: str = "", *, refused: str = "") -> Sent:
        """The credential for a request of a call, but not a token that was refused.

        Raises: ToolError, Refused, Unavailable.
        """
        credential.check()
        match credential.fields.type if credential.secret else "none":
            case "client_credentials":
                return credential.sent(user, call, token=await self._token(credential, refused))
            case "oauth":
                login = await self._login(credential, refused)
                secrets = [login["refresh_token"], login["client_secret"]]
                return credential.sent(user, call, token=login["access_token"], secrets=secrets)
        return credential.sent(user, call)

    async def _token(self, credential: Credential, refused: str) -> str:
        """Raises: ToolError, Refused."""
        fields = credential.fields
        digest = sha256(credential.secret.encode()).hexdigest()
        key = (credential.tenant, credential.toolset, str(fields.token_url), fields.client_id, fields.scope, digest)
        async with self._turns[key]:
            until, token = self._known.get(key, (0.0, ""))
            if time() >= until or token == refused:
                self._known.pop(key, None)
                token, life_s, _ = await self._of_client(credential)
                if len(self._known) >= MOST_TOKENS:
                    oldest = next(iter(self._known))
                    del self._known[oldest]
                    self._turns.pop(oldest, None)
                self._known[key] = time() + max(life_s - EARLY_S, life_s / 2), token
            return token

    async def _of_client(self, credential: Credential) -> _Given:
        """The client is named in a header, else in the form, as servers differ. Raises: ToolError, Refused."""
        fields, secret, place = credential.fields, credential.secret, str(credential.fields.token_url)
        form = {"grant_type": "client_credentials", **({"scope": fields.scope} if fields.scope else {})}
        withheld = Withheld([secret])
        try:
            return await self._given(credential.tenant, place, form, _basic(fields.client_id, secret), withheld)
        except ToolError as error:
            if error.code != "unauthorized":
                raise
        named = {**form, "client_id": fields.client_id, "client_secret": secret}
        return await self._given(credential.tenant, place, named, {}, withheld)

    async def _login(self, credential: Credential, refused: str) -> Login:
        """The tokens of a login, renewed where they have expired. Raises: ToolError, Refused, Unavailable."""
        login = _read(credential.secret)

        async def fetch(secret: str) -> str:
            return json.dumps(await self._renewed(credential.tenant, _read(secret)))

        if login["access_token"] == refused or login["expires_at"] <= time():
            whose = credential.tenant, credential.toolset, credential.person
            login = _read(await self.renew(*whose, credential.secret, fetch))
        return login

    async def _renewed(self, tenant: str, login: Login) -> Login:
        """Raises: ToolError, Refused."""
        if not login["refresh_token"]:
            raise ToolError("unauthorized", "The login of the toolset has expired, and cannot be renewed.")
        form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"], "client_id": login["client_id"]}
        form |= {"resource": login["resource"]} if login["resource"] else {}
        headers: Mapping[str, str] = {}
        if login["client_secret"] and login["method"] == "client_secret_basic":
            headers = _basic(login["client_id"], login["client_secret"])
        elif login["client_secret"]:
            form["client_secret"] = login["client_secret"]
        withheld = Withheld([login["refresh_token"], login["client_secret"]])
        try:
            given = await self._given(tenant, login["token_url"], form, headers, withheld)
        except ToolError as error:
            if error.code != "unauthorized":
                raise
            reason = f"The login of the toolset has expired, and was not renewed: {error.reason}"
            raise ToolError("unauthorized", reason) from None
        return {
            **login,
            "access_token": given.token,
            "refresh_token": given.refresh or login["refresh_token"],
            "expires_at": time() + max(given.life_s - EARLY_S, 0.0),
        }

    async def _given(
        self, tenant: str, url: str, form: Mapping[str, str], headers: Mapping[str, str], withheld: Withheld
    ) -> _Given:
        """The token that a server gives. Raises: ToolError, Refused."""
        sent = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded", **headers}
        request = Request("POST", url, sent, urlencode(form).encode())
        answer = await self.exchange(tenant, request, MOST_BYTES)
        found = _json(answer.data)
        token, refresh = found.get("access_token"), found.get("refresh_token")
        if answer.status != 200 or not isinstance(token, str) or not token or not is_field(token):
            code = "unauthorized" if answer.status in (200, 400, 401, 403) else "server_error"
            fault = withheld.text(str(found.get("error", ""))[:100])
            raise ToolError(code, f"The server of tokens gave none: status {answer.status} {fault}".strip() + ".")
        return _Given(token, _life(found.get("expires_in")), refresh if isinstance(refresh, str) else "")


def _basic(client: str, secret: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {base64(f'{quote_plus(client)}:{quote_plus(secret)}')}"}


def _read(secret: str) -> Login:
    """Raises: ToolError."""
    try:
        found = json.loads(secret)
        return cast("Login", {name: found[name] for name in Login.__required_keys__})
    except (ValueError, TypeError, KeyError):
        raise ToolError("unauthorized", "The toolset has no login.") from None


def _life(given: object) -> float:
    """Seconds, which some servers write as text."""
    try:
        life_s = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return USUAL_S
    return life_s if 0 < life_s < 1e9 else USUAL_S


def _json(data: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
