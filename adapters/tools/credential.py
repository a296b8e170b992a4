"""The secret of a toolset in its requests: where it goes, and what must not come back."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from urllib.parse import quote

from adapters.models.withheld import Withheld, base64
from adapters.tools.exchange import CONNECTION, Request, is_field, with_query
from handlers.commands.tools import AuthFields
from handlers.ports.tools import Invocation, ToolError

SIGNED = "v1"
"""Form of the header with the end user."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Headers and parameters of the address that go along with each request."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    withheld: Withheld
    token: str
    """The token among them that can be replaced by another one; empty for none."""

    def address(self, url: str) -> str:
        for name, value in self.query.items():
            url = with_query(url, name, value)
        return url

    def apply(self, request: Request) -> Request:
        headers = {**request.headers, **self.headers}
        if "Cookie" in request.headers and "Cookie" in self.headers:
            headers["Cookie"] = f"{request.headers['Cookie']}; {self.headers['Cookie']}"
        return request._replace(url=self.address(request.url), headers=headers)


@dataclass(frozen=True, slots=True)
class Credential:
    """The secret of one toolset of a tenant; `secret` is empty for none."""

    tenant: str
    toolset: str
    fields: AuthFields
    secret: str = field(repr=False)
    person: str = ""
    """The end user whose secret it is; empty for that of the toolset itself."""

    @property
    def names(self) -> list[tuple[str, str]]:
        """Place and name, in lower case, of the parameters that it fills in."""
        bearer = self.fields.type in ("basic", "bearer", "client_credentials", "oauth")
        found = [("header", "authorization")] if bearer else []
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
        if self.needed and not self.secret and not self.fields.per_user:
            raise ToolError("unauthorized", "The toolset has no secret, which its `auth` needs.")
        if taken := sorted({name for place, name in self.names if place == "header"} & CONNECTION):
            raise ToolError("unsupported", f"The header {taken[0]} is not for secrets: it belongs to the connection.")

    def sent(self, user: str = "", call: str = "", *, token: str = "", secrets: Sequence[str] = ()) -> Sent:
        """The headers and parameters of a request. A `token`, and other `secrets`, may come in place of the secret.

        Raises: ToolError.
        """
        self.check()
        fields, secret = self.fields, self.secret
        headers: dict[str, str] = {}
        query: dict[str, str] = {}
        match fields.type if secret else "none":
            case "query":
                query[fields.name] = secret
            case "cookie":
                headers["Cookie"] = f"{fields.name}={secret}"
            case "header":
                headers[fields.name] = fields.prefix + secret
            case "basic":
                headers["Authorization"] = f"Basic {base64(secret)}"
            case "bearer":
                headers["Authorization"] = f"Bearer {secret}"
            case "client_credentials" | "oauth":
                headers["Authorization"] = f"Bearer {token}"
        if not all(map(is_field, headers.values())) or (fields.type == "cookie" and ";" in secret):
            raise ToolError("unauthorized", "The secret of the toolset cannot be sent: it is not one line of ASCII.")
        if fields.user_header and user:
            headers[fields.user_header] = _signed(user, call, secret)
        password = [secret.partition(":")[2]] if fields.type == "basic" else []
        return Sent(headers, query, Withheld([secret, token, *secrets, *password]), token)


OfUser = Callable[[str, str, str], Awaitable[str]]
"""Return the secret of a person for a tenant's toolset. Raises: ToolError `no_secret`, Unavailable."""


async def no_users(tenant: str, toolset: str, person: str) -> str:
    """Raises: ToolError."""
    raise ToolError("no_secret", "There are no secrets of users here.")


async def of_call(credential: Credential, invocation: Invocation, of_user: OfUser) -> Credential:
    """The credential for a call: that of its end user, where each has one. Raises: ToolError, Unavailable."""
    if not credential.fields.per_user:
        return credential
    person = invocation.cause.metadata.person or ""
    return replace(credential, secret=await of_user(credential.tenant, credential.toolset, person), person=person)


def _signed(user: str, call: str, secret: str) -> str:
    """The value of the header with the end user: form, user, time in seconds, call, and their signature in hex."""
    said = f"{SIGNED},{quote(user, safe='')},{int(time.time())},{call}"
    return f"{said},{hmac.new(secret.encode(), said.encode(), sha256).hexdigest()}"
