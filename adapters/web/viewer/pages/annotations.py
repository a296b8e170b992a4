"""Annotations of apps: stored questions and answers, with the questions that got them."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.web.viewer.backend import Backend
from adapters.web.viewer.names import page_of
from adapters.web.viewer.render import as_json, render, wants_json

PAGE = 50
"""Number of annotations per page."""

HITS = 10
"""Maximum number of hits that are shown of an annotation, the newest first."""

_LIST = """
SELECT a.id, a.app_id, apps.name AS app, a.question, a.content, a.hit_count, a.account_id, a.conversation_id,
    a.message_id, a.created_at, a.updated_at,
    (SELECT count(*) FROM headrace.annotation_vectors v
        WHERE v.tenant_id = a.tenant_id AND v.annotation_id = a.id) AS vectors
FROM headrace.message_annotations a
LEFT JOIN headrace.apps ON (apps.tenant_id, apps.id) = (a.tenant_id, a.app_id)
WHERE a.tenant_id = %(tenant)s AND (%(apps)s::text[] IS NULL OR a.app_id = ANY(%(apps)s))
    AND (%(id)s = '' OR a.id = %(id)s)
    AND (%(q)s = '' OR strpos(lower(a.question || ' ' || a.content), lower(%(q)s)) > 0)
    AND (%(before)s::timestamptz IS NULL OR (a.created_at, a.id) < (%(before)s, %(row)s))
ORDER BY a.created_at DESC, a.id DESC LIMIT {limit}
"""
_HITS = """
SELECT h.annotation_id, h.score, h.embedding_model, h.created_at, h.message_id, m.query, m.trace_id
FROM unnest(%(ids)s::text[]) AS wanted(id)
CROSS JOIN LATERAL (
    SELECT * FROM headrace.app_annotation_hit_histories h
    WHERE h.tenant_id = %(tenant)s AND h.annotation_id = wanted.id ORDER BY h.created_at DESC LIMIT {limit}
) AS h
LEFT JOIN headrace.messages m ON (m.tenant_id, m.id) = (h.tenant_id, h.message_id)
"""
_SETTINGS = """
SELECT s.*, apps.name AS app FROM headrace.app_annotation_settings s
JOIN headrace.apps ON (apps.tenant_id, apps.id) = (s.tenant_id, s.id)
WHERE s.tenant_id = %(tenant)s AND (%(apps)s::text[] IS NULL OR s.id = ANY(%(apps)s)) ORDER BY apps.name, s.id LIMIT 50
"""


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    asked = await page_of(request, "app", "q", "id")
    of, values = asked.values["tenant"], asked.values
    found, settings = await asyncio.gather(
        backend.rows(_LIST.format(limit=PAGE + 1), values), backend.rows(_SETTINGS, values)
    )
    rows, more = found[:PAGE], len(found) > PAGE
    hits = await backend.rows(_HITS.format(limit=HITS), {"tenant": of, "ids": [row["id"] for row in rows]})
    for annotation in rows:
        annotation["hits"] = [hit for hit in hits if hit["annotation_id"] == annotation["id"]]
    older = f"{rows[-1]['created_at'].isoformat()}~{rows[-1]['id']}" if more else None
    if wants_json(request):
        return as_json({"annotations": rows, "settings": settings, "older": older})
    given = {
        "rows": rows,
        "settings": settings,
        "older": older,
        "said": asked.said,
        "first": values["before"] is None,
        "app": asked.apps,
    }
    return render(request, "annotations.html", given)


routes = [Route("/annotations", show)]
