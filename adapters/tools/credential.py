"""Credentials that are sent to the server of a toolset."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple, TypedDict, cast
from urllib.parse import quote

import httpx2

from adapters.egress.client import Egress
from adapters.models.withheld import SHORTEST, STARS
from handlers.ports.tools import ToolError

CONNECT_S = 10.0
"""Time limit of a connection, in seconds."""

MOST_TOKEN_BYTES = 64 * 2**10
"""Maximum size of an answer with a token, in bytes."""

LIFETIME_S, EARLY_S = 300.0, 30.0
"""Seconds: lifetime of a token that states none, and the time before its end at which a new one is fetched."""

TOKENS = 1000
"""Maximum number of tokens that are kept in memory."""

SIGNED = "v1"
"""Form of the header with the end user."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Headers and parameters of the address that go along with each request. `secrets` must not come back."""

    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    token: str = ""
    """The token among them that can be replaced by another one; empty for none."""


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


class Whose(NamedTuple):
    """The toolset whose credential is sent, with the settings of its auth, and its secret."""

    tenant: str
    toolset: str
    auth: Mapping[str, Any]
    secret: str


Renew = Callable[[str, str, str, Callable[[str], Awaitable[str]]], Awaitable[str]]
"""Return the secret of a tenant's toolset in place of an expired one, which a function may be asked to change."""


async def never(tenant: str, toolset: str, expired: str, fetch: Callable[[str], Awaitable[str]]) -> str:
    """Raises: ToolError."""
    raise ToolError("unauthorized", "The login of the toolset has expired.")


class Credentials:
    """The credentials of toolsets; tokens are kept until they expire."""

    def __init__(self, egress: Egress, renew: Renew = never, clock: Callable[[], float] = time.time) -> None:
        self._egress = egress
        self._renew = renew
        self._clock = clock
        self._tokens: dict[tuple[str, ...], tuple[float, str]] = {}

    async def get(self, whose: Whose, user: str = "", call: str = "", *, refused: str = "") -> Sent:
        """The credential, as the settings of a toolset ask for it, but not with a token that was refused.

        Raises: ToolError, Unavailable.
        """
        tenant, _, auth, secret = whose
        token = ""
        headers: dict[str, str] = {}
        query: dict[str, str] = {}
        secrets = [secret]
        match auth["type"]:
            case "header":
                headers[auth["name"]] = auth["prefix"] + secret
            case "query":
                query[auth["name"]] = secret
            case "cookie":
                headers["Cookie"] = f"{auth['name']}={quote(secret, safe='')}"
            case "basic":
                encoded = base64.b64encode(secret.encode()).decode()
                headers["Authorization"] = f"Basic {encoded}"
                secrets += [encoded, secret.partition(":")[2]]
            case "bearer":
                headers["Authorization"] = f"Bearer {secret}"
            case "client_credentials":
                token = await self._token(tenant, auth, secret, refused)
                headers["Authorization"] = f"Bearer {token}"
                secrets.append(token)
            case "oauth":
                login = await self._login(whose, refused)
                token = login["access_token"]
                headers["Authorization"] = f"Bearer {token}"
                secrets = [login[name] for name in ("access_token", "refresh_token", "client_secret")]
        if auth["user_header"] and user:
            headers[auth["user_header"]] = self._signed(user, call, secret)
        if any(not value.isascii() or not value.isprintable() for value in headers.values()):
            raise ToolError("unauthorized", "The secret has characters that no header can carry.")
        return Sent(headers, query, [each for each in secrets if each], token)

    async def _login(self, whose: Whose, refused: str) -> Login:
        """The tokens of a login, renewed where they have expired. Raises: ToolError, Unavailable."""
        login, secret = _read(whose.secret), whose.secret

        async def fetch(secret: str) -> str:
            return json.dumps(await self._refreshed(whose.tenant, _read(secret)))

        if login["access_token"] == refused or login["expires_at"] <= self._clock():
            secret = await self._renew(whose.tenant, whose.toolset, secret, fetch)
        return _read(secret)

    async def _refreshed(self, tenant: str, login: Login) -> Login:
        """Raises: ToolError."""
        if not login["refresh_token"]:
            raise ToolError("unauthorized", "The login of the toolset has expired, and cannot be renewed.")
        form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"], "client_id": login["client_id"]}
        form |= {"resource": login["resource"]} if login["resource"] else {}
        basic = None
        if login["client_secret"] and login["method"] == "client_secret_basic":
            basic = httpx2.BasicAuth(quote(login["client_id"], safe=""), quote(login["client_secret"], safe=""))
        elif login["client_secret"]:
            form["client_secret"] = login["client_secret"]
        answer = await self._post(tenant, login["token_url"], form, basic)
        if answer.status_code != 200:
            status = answer.status_code
            raise ToolError("unauthorized", f"The login of the toolset has expired: renewing it gave status {status}.")
        token, lifetime, given = _token_of(answer)
        refresh = given.get("refresh_token")
        return {
            **login,
            "access_token": token,
            "refresh_token": refresh if isinstance(refresh, str) and refresh else login["refresh_token"],
            "expires_at": self._clock() + lifetime,
        }

    def _signed(self, user: str, call: str, secret: str) -> str:
        """The header with the end user: form, user, time in seconds, call, and their signature in hex (HMAC-SHA-256).

        Raises: ToolError.
        """
        if not secret:
            raise ToolError("unauthorized", "The toolset has no secret to sign the id of the user with.")
        said = f"{SIGNED},{quote(user, safe='')},{int(self._clock())},{call}"
        return f"{said},{hmac.new(secret.encode(), said.encode(), sha256).hexdigest()}"

    async def _token(self, tenant: str, auth: Mapping[str, Any], secret: str, refused: str) -> str:
        """Raises: ToolError `unauthorized`, `unreachable`."""
        key = _key(tenant, auth, secret)
        until, token = self._tokens.get(key, (0.0, ""))
        if until <= self._clock() or token == refused:
            lifetime, token = await self._fetched(tenant, auth, secret)
            if len(self._tokens) >= TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = self._clock() + lifetime, token
        return token

    async def _fetched(self, tenant: str, auth: Mapping[str, Any], secret: str) -> tuple[float, str]:
        """The seconds for which a new token may be used, and the token. Servers differ in the place of the secret."""
        form = {"grant_type": "client_credentials", **({"scope": auth["scope"]} if auth["scope"] else {})}
        named = {"client_id": auth["client_id"], "client_secret": secret}
        basic = httpx2.BasicAuth(quote(auth["client_id"], safe=""), quote(secret, safe=""))
        answer = await self._post(tenant, auth["token_url"], form, basic)
        if answer.status_code in (400, 401):
            answer = await self._post(tenant, auth["token_url"], {**form, **named}, None)
        if answer.status_code != 200:
            raise ToolError("unauthorized", f"The token_url refused the secret, with status {answer.status_code}.")
        token, lifetime, _ = _token_of(answer)
        return lifetime, token

    async def _post(
        self, tenant: str, url: str, form: Mapping[str, str], basic: httpx2.BasicAuth | None
    ) -> httpx2.Response:
        """Raises: ToolError `unreachable`."""
        try:
            async with self._egress.client(tenant, connect_s=CONNECT_S, most=MOST_TOKEN_BYTES) as client:
                return await client.post(url, data=form, auth=basic or httpx2.USE_CLIENT_DEFAULT)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ToolError("unreachable", f"The server of tokens does not answer: {type(error).__name__}.") from None


def _token_of(answer: httpx2.Response) -> tuple[str, float, Mapping[str, Any]]:
    """A token, the seconds for which it may be used, and the whole answer. Raises: ToolError."""
    try:
        given = answer.json()
        token, lifetime = given["access_token"], float(given.get("expires_in") or LIFETIME_S)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ToolError("unauthorized", "The server of tokens gave none.") from None
    if not isinstance(token, str) or not token:
        raise ToolError("unauthorized", "The server of tokens gave none.")
    return token, max(lifetime - EARLY_S, 0.0), given


def _read(secret: str) -> Login:
    """Raises: ToolError."""
    try:
        found = json.loads(secret)
        return cast("Login", {name: found[name] for name in Login.__required_keys__})
    except (ValueError, TypeError, KeyError):
        raise ToolError("unauthorized", "The toolset has no login.") from None


def _key(tenant: str, auth: Mapping[str, Any], secret: str) -> tuple[str, ...]:
    return tenant, auth["token_url"] or "", auth["client_id"], auth["scope"], secret


def scrubbed(value: Any, secrets: Sequence[str]) -> Any:
    """A JSON value, or bytes, with stars in place of the secrets that were sent; a short secret is an ordinary word."""
    words = {
        spelled
        for secret in secrets
        if len(secret) >= SHORTEST
        for spelled in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], _base64(secret))
    }
    return _scrubbed(value, sorted(words, key=len, reverse=True))


def _base64(secret: str) -> str:
    return base64.b64encode(secret.encode()).decode()


def _scrubbed(value: Any, words: Sequence[str]) -> Any:
    match value:
        case str():
            for word in words:
                value = value.replace(word, STARS)
        case bytes():
            for word in words:
                value = value.replace(word.encode(), b"*" * len(word.encode()))
        case dict():
            return {_scrubbed(name, words): _scrubbed(each, words) for name, each in value.items()}
        case list():
            return [_scrubbed(each, words) for each in value]
    return value
