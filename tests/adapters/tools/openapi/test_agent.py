"""An agent with a toolset of an API: from the command that registers it to the record of each call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from adapters.tools.registry import KindsOfToolboxes
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from handlers.tools.refresh import Refresh
from tests.adapters.tools.openapi.api import Heard, Server, Writes, document, making, says, serving
from tests.handlers.tools.scene import Box, Scene, call
from tests.memory import Memory

SECRET = "s3cret-of-the-api"

PATHS: dict[str, Any] = {
    "/pets/{id}": {
        "get": {"operationId": "getPet", "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}]}
    },
    "/pets": {"post": {"operationId": "addPet", "requestBody": {"content": {"application/json": {}}}}},
}


def answers(heard: Heard) -> Writes:
    if heard.target == "/pets/7":
        return says(json.dumps({"name": "Rex", "sent": heard.headers["authorization"]}))
    if heard.target == "/pets/9":
        return says(b"\x89PNG\x00", media_type="image/png")
    return says("x" * 5000 + heard.headers["authorization"], 500, "text/plain")


@asynccontextmanager
async def agent(memory: Memory, tenant: str, *says: Any) -> AsyncIterator[tuple[Scene, Server]]:
    """An agent whose toolset `box` is the API, which has listed its tools."""
    scene = Scene(memory, tenant, *says)
    async with (
        serving(answers) as server,
        making(unseal=scene.desk.vault.open, blobs=scene.desk.blobs) as make,
    ):
        scene.box = cast("Box", KindsOfToolboxes(scene.box, {"openapi": make}))
        text = json.dumps(document(PATHS, server.url))

        async def registered() -> None:
            settings = {"text": text, "auth": {"type": "bearer"}}
            await scene.desk.done("toolset.register", name="box", kind="openapi", openapi=settings, secret=SECRET)
            commits = await scene.desk.commits("toolset", "box")
            await Refresh(scene.desk.repository, scene.desk.blobs, scene.box)(commits[-1])

        scene.registered = registered  # type: ignore[method-assign]
        yield scene, server


async def test_a_call_of_an_api_is_recorded_without_the_secret(memory: Memory, tenant: str) -> None:
    async with agent(memory, tenant, ("", [call("getPet", id=7)]), "It is Rex.") as (scene, server):
        await scene.worker()(await scene.asked())
    toolset = await scene.desk.fold("toolset", "box")
    assert isinstance(toolset, Toolset)
    assert toolset.digest
    [made] = await scene.tool_calls()
    assert (made.status, made.text) == ("completed", '{"name":"Rex","sent":"Bearer ***"}')
    assert made.parts == [{"type": "json", "value": {"name": "Rex", "sent": "Bearer ***"}}]
    [heard] = server.heard
    assert (heard.headers["authorization"], heard.headers["idempotency-key"]) == (f"Bearer {SECRET}", made.id)
    requested = (await scene.desk.events("tool_call", made.id))[0]
    assert isinstance(requested, ToolCall.Requested)
    assert (requested.kind, requested.tool, requested.server) == ("openapi", "getPet", f"127.0.0.1:{server.port}")
    assert (requested.destructive, requested.idempotent, requested.digest) == (False, True, toolset.digest)
    assert (await scene.state())["answer"] == "It is Rex."
    assert SECRET not in str([message.body for message in memory.streams["EVENTS"].messages])


async def test_a_post_waits_for_a_person(memory: Memory, tenant: str) -> None:
    async with agent(memory, tenant, ("", [call("addPet", body={"name": "Rex"})])) as (scene, server):
        await scene.worker()(await scene.asked())
        assert (await scene.state())["status"] == "held"
        assert server.heard == []


async def test_a_failed_call_has_the_words_of_the_server_and_a_picture_is_a_file(memory: Memory, tenant: str) -> None:
    calls = [call("getPet", "a", id=8), call("getPet", "b", id=9), call("getPet", "c", id="x")]
    async with agent(memory, tenant, ("", calls), "Done.") as (scene, server):
        await scene.worker()(await scene.asked())
    failed, picture, invalid = await scene.tool_calls()
    assert (failed.status, failed.code) == ("failed", "server_error")
    assert failed.reason == "The server answered with status 500: " + "x" * 2048
    assert [part["type"] for part in picture.parts] == ["image"]
    assert picture.text == "[image 9 was made, and is shown to the user.]"
    assert (invalid.code, len(server.heard)) == ("invalid_arguments", 2)


async def test_a_toolset_that_cannot_be_read_says_why(memory: Memory, tenant: str) -> None:
    async with agent(memory, tenant) as (scene, _):
        await scene.desk.done("toolset.register", name="bad", kind="openapi", openapi={"text": "openapi: 3.0.0"})
        commits = await scene.desk.commits("toolset", "bad")
        await Refresh(scene.desk.repository, scene.desk.blobs, scene.box)(commits[-1])
    event = (await scene.desk.events("toolset", "bad"))[-1]
    assert isinstance(event, Toolset.RefreshFailed)
    assert (event.code, event.reason) == ("bad_request", "The document cannot be read. It has no `paths`.")
