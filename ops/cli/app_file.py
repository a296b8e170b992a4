"""An app file and a tenant: what the tenant has for it, and the commands that import it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from adapters.dsl.importing import Import, app_fields, icon_fields
from adapters.jetstream.client import Client, Outcome, rejection
from domain.workflows.needs import Known
from ops.cli.frame import Failed, connected, rows
from ops.settings import Settings


async def known_of(settings: Settings) -> Known:
    """Models, knowledge bases and tools of the tenant, as the tables say. Raises: Failed."""
    found = await rows(settings, _KNOWN, tenant=settings.tenant)
    models: dict[str, frozenset[str]] = {"builtin": frozenset({"extractive"})}
    toolsets: dict[str, frozenset[str]] = {}
    for row in found:
        if row["kind"] == "provider":
            models[row["id"]] = frozenset(row["names"])
        elif row["kind"] == "toolset":
            toolsets[row["id"]] = frozenset(row["names"])
    from adapters.tools.builtin.toolbox import DEFINITIONS

    toolsets["builtin"] = frozenset(each["name"] for each in DEFINITIONS)
    datasets = frozenset(row["id"] for row in found if row["kind"] == "dataset")
    strategies = frozenset(name for row in found if row["kind"] == "plugin" for name in row["names"])
    return Known(models, datasets, toolsets, strategies)


_KNOWN: LiteralString = """
SELECT 'provider' AS kind, p.id, CASE WHEN p.models IS NULL THEN '{}'::text[] ELSE ARRAY(
    SELECT m.model FROM headrace.provider_models m WHERE m.tenant_id = p.tenant_id AND m.provider_id = p.id
) END AS names
FROM headrace.providers p WHERE p.tenant_id = %(tenant)s AND p.status = 'active'
UNION ALL
SELECT 'toolset', t.id, ARRAY(SELECT e ->> 'name' FROM jsonb_array_elements(t.tools) e)
FROM headrace.toolsets t WHERE t.tenant_id = %(tenant)s AND t.status = 'active'
UNION ALL
SELECT 'dataset', d.id, '{}'::text[] FROM headrace.datasets d WHERE d.tenant_id = %(tenant)s
UNION ALL
SELECT 'plugin', u.id, ARRAY(SELECT jsonb_path_query(p.manifest, '$.dify.strategies[*].strategies[*].name') #>> '{}')
FROM headrace.plugin_uses u JOIN headrace.plugins p ON p.id = u.id AND p.tenant_id = '_house'
WHERE u.tenant_id = %(tenant)s AND u.status <> 'disabled' AND p.status = 'installed'
"""


async def send_import(settings: Settings, made: Import, into: str | None, wait: float) -> tuple[str, list[str]]:
    """The id of the app, and the commands that were accepted. Raises: Failed."""
    document, mode = made.document, made.file.mode
    replaces = None
    if into:
        known = await app_of(settings, into)
        if known["mode"] != mode:
            raise Failed(f"App {into} is of mode {known['mode']}, the file of mode {mode}.")
        draft = await rows(settings, _DRAFT, tenant=settings.tenant, app=into, number=0)
        replaces = draft[0]["document"] if draft else None
    done: list[str] = []
    async with connected(settings) as client:

        async def send(command: str, /, **fields: Any) -> Outcome:
            outcome = await client.send(command, fields, wait=wait)
            if outcome["status"] == "rejected":
                raise Failed(f"{command}: {rejection(outcome)}{_half(done, fields)}")
            done.append(command)
            return outcome

        id = into or str((await send("app.create", **app_fields(document, mode)))["ids"]["app"])
        if (icon := icon_fields(document)) and not into:
            await send("app.set_icon", app=id, icon=icon)
        file = await client.upload_blob(made.original)
        if made.configuring is None:
            fields = await _document(client, document)
            await send("workflow.save", app=id, **fields, file=file, secrets=made.secrets, replaces=replaces)
            return id, done
        if made.configuring.ready:
            await send("app.configure", app=id, **made.configuring.fields)
        await send("app.keep_file", app=id, file=file)
    return id, done


async def _document(client: Client, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return {"digest": await client.upload_blob(data)}


def _half(done: Sequence[str], fields: Mapping[str, Any]) -> str:
    """A note on an app that was made and is not complete."""
    return f" App {fields['app']} was made; import the file into it, with --app." if "app.create" in done else ""


async def draft_of(settings: Settings, app: str, number: int | None) -> dict[str, Any]:
    """The row of a draft, or of a version. Raises: Failed."""
    found = await rows(settings, _DRAFT, tenant=settings.tenant, app=app, number=number or 0)
    if not found:
        what = f"version {number}" if number else "draft"
        raise Failed(f"App {app} has no {what}; see `headrace workflow list {app}`.")
    return found[0]


async def app_of(settings: Settings, id: str) -> dict[str, Any]:
    found = await rows(settings, _APP, tenant=settings.tenant, id=id)
    if not found:
        raise Failed(f"There is no app {id}.")
    return found[0]


_APP: LiteralString = "SELECT * FROM headrace.apps WHERE tenant_id = %(tenant)s AND id = %(id)s"

_DRAFT: LiteralString = (
    "SELECT * FROM headrace.workflows WHERE tenant_id = %(tenant)s AND app_id = %(app)s AND number = %(number)s"
)
