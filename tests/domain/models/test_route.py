from __future__ import annotations

from domain.models.route import Group, Member, ModelRoute, RouteSettings
from tests.domain.scenario import NOW, given, made


def settings(*models: str, **changes: object) -> RouteSettings:
    members = [Member(provider="lab", model=model, weight=1, context_window=None) for model in models]
    return {
        **RouteSettings(groups=[Group(strategy="weighted", members=members)], reactions={}, restart=False, wait_s=0),
        **changes,  # type: ignore[typeddict-item]
    }


def route() -> ModelRoute:
    return ModelRoute.begin(ModelRoute.Configured, "fast", NOW, **settings("small"))


def change(route: ModelRoute) -> None:
    route.change(NOW, **settings("small", "large"))


def remove(route: ModelRoute) -> None:
    route.remove(NOW)


def test_is_configured() -> None:
    made(route()).then(ModelRoute.Configured).whole(**settings("small"))


def test_is_changed() -> None:
    given(route()).once(change, ModelRoute.Changed, **settings("small", "large"))


def test_is_removed_and_may_come_back() -> None:
    scenario = given(route(), change).once(remove, ModelRoute.Removed)
    assert scenario.aggregate.deleted
    assert not scenario.when(change).then(ModelRoute.Changed).aggregate.deleted


def test_reacts_as_usual_where_it_says_nothing_else() -> None:
    made = ModelRoute.begin(ModelRoute.Configured, "fast", NOW, **settings("small", reactions={"bad_request": "next"}))
    found = [made.reaction(code) for code in ("bad_request", "rate_limited", "truncated", "content_filter", "no_word")]
    assert found == ["next", "next", "larger", "stop", "stop"]
