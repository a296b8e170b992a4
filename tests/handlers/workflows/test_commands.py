"""Commands of workflows: what is saved, refused and published, and for whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.workflows.graph import load
from domain.workflows.workflow import Workflow
from tests.handlers.desk import Desk
from tests.memory import Memory

KEY = {"name": "KEY", "value_type": "secret", "value": ""}


def document(*nodes: dict[str, Any], mode: str = "workflow", **workflow: Any) -> dict[str, Any]:
    found = nodes or ({"id": "s", "data": {"type": "start"}}, {"id": "e", "data": {"type": "end"}})
    return {"app": {"mode": mode}, "workflow": {"graph": {"nodes": list(found), "edges": []}, **workflow}}


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@pytest.fixture
async def app(desk: Desk) -> str:
    return await desk.done("app.create", name="Chart", mode="workflow")


async def draft(desk: Desk, app: str) -> Any:
    workflow = await desk.repository.get(Workflow, desk.tenant, app)
    assert workflow
    return workflow.draft


async def test_a_document_and_its_graph_are_blobs(desk: Desk, app: str) -> None:
    given = {**document(), "own": ["kept", {"x": None}]}
    await desk.done("workflow.save", app=app, document=given)
    saved = await draft(desk, app)
    assert json.loads(await desk.blobs.get(desk.tenant, saved["document"])) == given
    graph = load(json.loads(await desk.blobs.get(desk.tenant, saved["graph"])))
    assert (graph.digest, list(graph.nodes)) == (saved["graph"], ["s", "e"])


async def test_a_large_document_is_named_by_its_digest(desk: Desk, app: str) -> None:
    given = document(features={"opening_statement": "x" * 300 * 2**10})
    digest = await desk.blobs.put(desk.tenant, json.dumps(given).encode())
    await desk.done("workflow.save", app=app, digest=digest, file=digest)
    assert (await draft(desk, app))["file"] == digest
    for data, rule in (
        (b"[]", "no JSON object"),
        (b"{", "no JSON"),
        (b"[" * 10**6, "no JSON"),
        (b"[1e999]", "no JSON"),
    ):
        broken = await desk.blobs.put(desk.tenant, data)
        outcome = await desk.send("workflow.save", app=app, digest=broken)
        assert (outcome.code, outcome.field, rule in str(outcome.message)) == ("invalid", "digest", True)
    for data in (b'"a\\u0000"', b'{"\\u0000": 1}'):
        broken = await desk.blobs.put(desk.tenant, b'{"app": {"mode": "workflow"}, "workflow": ' + data + b"}")
        outcome = await desk.send("workflow.save", app=app, digest=broken)
        assert (outcome.code, "NUL" in str(outcome.message)) == ("invalid", True)
    assert await desk.fails("workflow.save", app=app, digest="0" * 64) == ("not_found", "digest")
    assert await desk.fails("workflow.save", app=app, document=given | {"x": 1}) == ("invalid", "document")
    assert await desk.fails("workflow.save", app=app) == ("invalid", "document")


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"app": {"mode": "workflow"}}, "invalid", "workflow"),
        (document(mode="advanced-chat"), "wrong_mode", "app.mode"),
        (document({"data": {"type": "code"}}), "invalid", "workflow.graph.nodes[0].id"),
        (document(environment_variables=[{**KEY, "value": "hush"}]), "invalid", "workflow.environment_variables"),
        (document(features={"x": 10**400}), "broken_json", None),
    ],
)
async def test_what_is_no_draft_of_the_app_is_refused(
    desk: Desk, app: str, given: dict[str, Any], code: str, field: str | None
) -> None:
    payload = json.dumps({"app": app, "document": given}).encode()
    assert await desk.fails("workflow.save", payload) == (code, field)


async def test_only_apps_with_a_graph_have_drafts_and_only_others_configurations(desk: Desk, app: str) -> None:
    talk = await desk.done("app.create", name="Talk")
    assert await desk.fails("workflow.save", app=talk, document=document()) == ("wrong_mode", "app")
    assert await desk.fails("app.configure", app=app, prompt="Hi") == ("wrong_mode", "app")
    digest = await desk.blobs.put(desk.tenant, b"app: {}")
    assert await desk.fails("app.keep_file", app=app, file=digest) == ("wrong_mode", "app")
    assert await desk.fails("message.send", app=app, query="?") == ("wrong_mode", "app")


async def test_secrets_are_sealed_and_kept_until_they_change(desk: Desk, app: str) -> None:
    given = document(environment_variables=[KEY, {**KEY, "name": "URL"}])
    outcome = await desk.send("workflow.save", app=app, document=given, secrets={"NONE": "k"})
    assert (outcome.code, outcome.field, outcome.excerpt) == ("invalid", "secrets.NONE", None)
    await desk.done("workflow.save", app=app, document=given, secrets={"KEY": "hush"})
    first = await draft(desk, app)
    assert desk.vault.open(desk.tenant, first["secrets"]["KEY"]) == "hush"
    assert "hush" not in str(await desk.events("workflow", app))
    more = {**given, "version": "0.6.0"}
    await desk.done("workflow.save", app=app, document=more, secrets={"URL": "x"}, replaces=first["document"])
    second = await draft(desk, app)
    assert second["secrets"]["KEY"] == first["secrets"]["KEY"]
    await desk.done("workflow.save", app=app, document=document(), replaces=second["document"])
    assert (await draft(desk, app))["secrets"] == {}


async def test_what_cannot_run_is_not_published(desk: Desk, app: str) -> None:
    assert await desk.fails("workflow.publish", workflow=app) == ("not_found", "workflow")
    code = {"type": "code", "code_language": "cobol", "code": "x", "outputs": {}, "variables": []}
    nodes = ({"id": "s", "data": {"type": "start"}}, {"id": "c", "data": code})
    await desk.done("workflow.save", app=app, document=document(*nodes))
    outcome = await desk.send("workflow.publish", workflow=app)
    assert (outcome.code, outcome.field) == ("cannot_run", "c.code_language")
    assert str(outcome.message).startswith("Node c: ")
    empty = document({"id": "e", "data": {"type": "end"}})
    await desk.done("workflow.save", app=app, document=empty, replaces=(await draft(desk, app))["document"])
    assert await desk.fails("workflow.publish", workflow=app) == ("cannot_run", "graph.nodes")
    assert await desk.fails("workflow.restore", workflow=app, number=1) == ("not_found", "number")


async def test_names_and_comments_are_as_long_as_they_may_be(desk: Desk, app: str) -> None:
    await desk.done("workflow.save", app=app, document=document())
    assert await desk.fails("workflow.publish", workflow=app, name="x" * 21) == ("invalid", "name")
    assert await desk.fails("workflow.publish", workflow=app, comment="x" * 101) == ("invalid", "comment")
    await desk.done("workflow.publish", workflow=app, name="x" * 20, comment="x" * 100)


async def test_a_key_for_an_app_reaches_its_workflow_and_no_other(desk: Desk, app: str) -> None:
    other = await desk.done("app.create", name="Other", mode="workflow")
    await desk.done("workflow.save", app=other, document=document())
    fields = {"name": "Of the chart", "digest": "7" * 64, "hint": "z9", "permissions": ["app.manage"], "apps": [app]}
    actor = f"k_{await desk.done('api_key.create', **fields)}"
    saved = await desk.send("workflow.save", app=app, document=document(), actor=actor)
    published = await desk.send("workflow.publish", workflow=app, actor=actor)
    assert [saved.status, published.status] == ["accepted", "accepted"]
    for name, payload in (("save", {"app": other, "document": document()}), ("publish", {"workflow": other})):
        refused = await desk.send(f"workflow.{name}", payload, actor=actor)
        assert (refused.status, refused.code) == ("rejected", "forbidden")


async def test_a_deleted_app_publishes_nothing(desk: Desk, app: str) -> None:
    await desk.done("workflow.save", app=app, document=document())
    await desk.done("app.delete", app=app)
    assert await desk.fails("workflow.publish", workflow=app) == ("not_found", "workflow")
    assert await desk.fails("workflow.save", app=app, document=document()) == ("not_found", "app")
    assert await desk.fails("workflow.publish", workflow=new_id()) == ("not_found", "workflow")
