"""Toolsets: their secret stays only where it was given for."""

from __future__ import annotations

from typing import Any

import pytest

from domain.tools.toolset import Toolset
from tests.handlers.desk import Desk
from tests.memory import Memory

URL = "https://host/openapi.json"


def tokens(host: str) -> dict[str, Any]:
    return {"type": "client_credentials", "token_url": f"https://{host}/token"}


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ({"url": URL}, {"url": URL, "operations": ["get"]}, True),
        ({"url": URL}, {"url": URL, "auth": {"type": "query", "name": "key"}}, True),
        ({"url": URL}, {"url": "https://other/openapi.json"}, False),
        ({"url": URL}, {"url": URL, "server": "https://other"}, False),
        ({"url": URL}, {"text": "openapi: 3.0.0"}, False),
        ({"url": URL, "auth": tokens("host")}, {"url": URL, "auth": {**tokens("host"), "scope": "read"}}, True),
        ({"url": URL, "auth": tokens("host")}, {"url": URL, "auth": tokens("other")}, False),
    ],
)
async def test_a_secret_is_kept_only_for_the_place_that_it_was_given_for(
    memory: Memory, tenant: str, before: dict[str, Any], after: dict[str, Any], kept: bool
) -> None:
    desk = Desk(memory, tenant)
    await desk.done("toolset.register", name="api", kind="openapi", openapi=before, secret="s3cret")
    await desk.done("toolset.register", name="api", kind="openapi", openapi=after)
    toolset = await desk.fold("toolset", "api")
    assert isinstance(toolset, Toolset)
    assert (toolset.secret is not None) == kept
    if toolset.secret:
        assert desk.vault.open(tenant, toolset.secret["sealed"]) == "s3cret"


async def test_an_empty_secret_takes_it_away(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    await desk.done("toolset.register", name="api", kind="openapi", openapi={"url": URL}, secret="s3cret")
    await desk.done("toolset.register", name="api", kind="openapi", openapi={"url": URL}, secret="")
    toolset = await desk.fold("toolset", "api")
    assert isinstance(toolset, Toolset)
    assert toolset.secret is None
