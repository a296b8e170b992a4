"""The secrets of end users for toolsets: sealed when they are set, and opened for the calls of the users' turns."""

from __future__ import annotations

from base64 import b64decode, b64encode

from domain.tools.toolset import Toolset
from domain.tools.user_secrets import UserSecrets
from handlers.ports.people import Erased, People
from handlers.ports.tools import ToolError
from handlers.repository import Repository

KIND = "user_secret"

HOW = "send user_secret.set, or call `headrace toolset set-user-secret`"


async def seal(people: People, tenant: str, person: str, secret: str) -> str:
    """Raises: Erased, Unavailable."""
    return b64encode(await people.seal(tenant, person, KIND, secret.encode())).decode()


async def opened(repository: Repository, people: People, tenant: str, name: str, person: str) -> str:
    """The secret of a person for a toolset. Raises: ToolError `no_secret`, Unavailable."""
    toolset = await repository.get(Toolset, tenant, name)
    found = await repository.get(UserSecrets, tenant, person) if person else None
    known = found.secrets.get(name) if found else None
    if known is None or toolset is None:
        raise ToolError("no_secret", f"The user has no secret for the toolset {name}, which asks for one: {HOW}.")
    if known["place"] != toolset.place:
        reason = f"The toolset {name} is at another place than when the user's secret was set. To set it again, {HOW}."
        raise ToolError("no_secret", reason)
    try:
        return (await people.open(tenant, person, KIND, b64decode(known["sealed"]))).decode()
    except Erased:
        raise ToolError("no_secret", "The user was erased.") from None
