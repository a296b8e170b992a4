"""Plugins: the installed packages, how the tenant uses them, what they have done, and what they wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.plugins.logs import entries
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import seen
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from domain.access.tenant import HOUSE

PLUGINS, LINES = 200, 20
"""Maximum number of plugins on the page, and of entries of the logs of one."""

_INSTALLED = """
SELECT p.id, p.version, p.kind, p.digest, p.content, p.created_at, p.updated_at,
    p.manifest ->> 'description' AS description, p.manifest -> 'hooks' AS hooks, p.manifest -> 'network' AS network,
    coalesce((p.manifest ->> 'instances')::int, 1) AS instances, p.manifest -> 'dify' AS dify,
    coalesce(u.status, 'not used') AS status, u.reason, u.content AS wanted, u.settings, u.secrets,
    coalesce(s.keys, 0) AS kept, coalesce(s.bytes, 0) AS bytes
FROM headrace.plugins p
LEFT JOIN headrace.plugin_uses u ON u.tenant_id = %(tenant)s AND u.id = p.id
LEFT JOIN headrace.plugin_storage s ON s.tenant_id = %(tenant)s AND s.id = p.id
WHERE p.tenant_id = %(house)s AND p.status = 'installed' ORDER BY p.id LIMIT {limit}
"""

_VERSIONS = """
SELECT plugin_id, version, count(*) AS runs, count(*) FILTER (WHERE changed) AS changed,
    count(*) FILTER (WHERE action = 'fail') AS failed, avg(duration_ms) AS mean_ms, max(created_at) AS last_at
FROM headrace.plugin_runs WHERE tenant_id = %(tenant)s AND created_at > now() - interval '30 days'
GROUP BY plugin_id, version ORDER BY plugin_id, max(created_at) DESC
"""

_USED = """
SELECT settings ->> 'name' AS plugin, 'toolset' AS noun, id, id AS name FROM headrace.toolsets
WHERE tenant_id = %(tenant)s AND kind = 'plugin' AND status = 'active'
UNION ALL
SELECT split_part(substr(base_url, 10), '/', 1), 'provider', id, id FROM headrace.providers
WHERE tenant_id = %(tenant)s AND kind = 'dify' AND status = 'active'
UNION ALL
SELECT c.agent_mode -> 'plugin' ->> 'name', 'app', a.id, a.name FROM headrace.apps a
JOIN headrace.app_model_configs c ON (c.tenant_id, c.id) = (a.tenant_id, a.app_model_config_id)
WHERE a.tenant_id = %(tenant)s AND c.agent_mode ->> 'strategy' = 'plugin'
UNION ALL
SELECT f ->> 'plugin', 'app', a.id, a.name FROM headrace.apps a
JOIN headrace.app_model_configs c ON (c.tenant_id, c.id) = (a.tenant_id, a.app_model_config_id)
CROSS JOIN jsonb_array_elements(coalesce(c.sensitive_word_avoidance -> 'configs', '[]')) f
WHERE a.tenant_id = %(tenant)s AND f ->> 'kind' = 'plugin'
ORDER BY 2, 4
"""

VERBS: Mapping[str, str] = {"enable": "plugin.enable", "disable": "plugin.disable", "clear": "plugin.clear"}


async def show(request: Request, wrong: str = "") -> Response:
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request), "house": HOUSE}
    plugins = await backend.rows(_INSTALLED.format(limit=PLUGINS), of)
    versions, used = await backend.rows(_VERSIONS, of), await backend.rows(_USED, of)
    logs: Path | None = request.app.state.logs
    for plugin in plugins:
        plugin["versions"] = [row for row in versions if row["plugin_id"] == plugin["id"]]
        plugin["used_by"] = [row for row in used if row["plugin"] == plugin["id"]]
        plugin["logs"] = await _logs(logs, plugin, of["tenant"]) if logs else []
    status = 400 if wrong else 200
    if wants_json(request):
        return as_json({"plugins": plugins, "error": wrong or None}, status)
    return render(request, "plugins.html", {"plugins": plugins, "wrong": wrong}, status)


async def _logs(folder: Path, plugin: Row, tenant: str) -> list[Mapping[str, Any]]:
    if plugin["status"] == "not used":
        return []
    with suppress(OSError):
        return await asyncio.to_thread(entries, folder, plugin["id"], LINES, tenant)
    return []


async def change(request: Request) -> Response:
    """Enable or disable a plugin for the tenant, or delete the values that it keeps."""
    verb, name = request.path_params["verb"], request.path_params["name"]
    if verb not in VERBS:
        raise HTTPException(404, "There is no such page.")
    outcome = await (await client(request)).send(VERBS[verb], {"plugin": name})
    if outcome["status"] == "rejected":
        if outcome.get("code") == "not_found":
            raise HTTPException(404, "There is no such plugin.")
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    return RedirectResponse(link(request, "/plugins"), 303)


routes = [Route("/plugins", show), Route("/plugins/{name}/{verb}", change, methods=["POST"])]
