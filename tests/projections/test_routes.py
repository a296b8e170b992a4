from __future__ import annotations

from domain.models.route import ModelRoute
from projections.routes import routes
from tests.domain.models.test_route import settings
from tests.projections.history import History


def test_a_route_changes_goes_and_comes_back() -> None:
    history = History()
    route = ModelRoute.begin(ModelRoute.Configured, "fast", history.now, **settings("small"))
    began = history.record(route)
    route.change(history.now, **settings("large", wait_s=9))
    at = history.record(route)
    [row] = history.rows(routes)
    assert (row["id"], row["groups"], row["wait_s"]) == ("fast", settings("large")["groups"], 9)
    assert (row["created_at"], row["updated_at"]) == (began, at)
    route.remove(history.now)
    history.record(route)
    assert history.rows(routes) == []
    route.change(history.now, **settings("small"))
    at = history.record(route)
    [row] = history.rows(routes)
    assert (row["created_at"], row["restart"], row["reactions"]) == (at, False, {})
