from __future__ import annotations

from typing import Any, cast

import pytest

from domain.aggregate import Rejection, new_id
from domain.chat.app import App, Features, FileSettings, ModelSettings, Variable, features, settings
from domain.chat.site import Icon, Site
from tests.domain.scenario import NOW, given, made

MODEL = ModelSettings(provider="builtin", name="extractive", max_tokens=512, context_window=8192, parameters={})
RETRIEVAL = settings({"mode": "hybrid", "top_k": 4, "score_threshold": None})
CITY = Variable(name="city", required=True, default=None)
TONE = Variable(name="tone", required=False, default="calm")
NOTE = Variable(name="note", required=False, default=None)


def app() -> App:
    return App.begin(App.Created, new_id(), NOW, name="Guide", description="Answers from the handbook")


def configure(app: App, **fields: Any) -> None:
    given = {
        "model": MODEL,
        "prompt": "Be brief.",
        "variables": [],
        "datasets": [],
        "retrieval": RETRIEVAL,
        "features": features({}),
    }
    app.configure(NOW, **given | fields)


def asking(app: App) -> None:
    configure(app, variables=[CITY, TONE, NOTE])


def test_is_created_without_a_configuration() -> None:
    made(app()).then(App.Created).whole(name="Guide", description="Answers from the handbook", mode="chat")
    assert app().configuration is None


def test_numbers_its_configurations() -> None:
    scenario = given(app()).once(configure, App.Configured, number=1, model=MODEL)
    scenario.once(lambda app: configure(app, prompt="Be long."), App.Configured, number=2, prompt="Be long.")
    assert scenario.aggregate.configuration == {
        "number": 2,
        "model": MODEL,
        "prompt": "Be long.",
        "variables": [],
        "datasets": [],
        "retrieval": RETRIEVAL,
        "features": features({}),
    }
    assert scenario.aggregate.configurations["1"]["prompt"] == "Be brief."


def test_an_earlier_configuration_that_comes_back_gets_a_new_number() -> None:
    given(app(), configure, lambda app: configure(app, prompt="Other")).when(configure).then(App.Configured, number=3)


def test_is_deleted_once() -> None:
    scenario = given(app()).once(lambda app: app.delete(NOW), App.Deleted)
    assert scenario.aggregate.deleted


def test_fills_in_the_inputs() -> None:
    it = given(app(), asking).aggregate
    assert it.inputs({"city": "Delft"}) == {"city": "Delft", "tone": "calm", "note": ""}
    assert it.inputs({"city": "", "tone": "", "note": "x"}) == {"city": "", "tone": "", "note": "x"}


@pytest.mark.parametrize(
    ("inputs", "code", "field"),
    [
        ({}, "missing_input", "inputs.city"),
        ({"city": "Delft", "town": "Delft"}, "unknown_input", "inputs.town"),
    ],
)
def test_refuses_wrong_inputs(inputs: dict[str, str], code: str, field: str) -> None:
    given(app(), asking).when(lambda app: app.inputs(inputs)).rejects(code, field)


def test_takes_no_inputs_before_it_is_configured() -> None:
    given(app()).when(lambda app: app.inputs({})).rejects("not_configured", "app")


def test_names_the_known_inputs() -> None:
    with pytest.raises(Rejection, match="are: city, tone, note"):
        given(app(), asking).aggregate.inputs({"town": "Delft"})
    with pytest.raises(Rejection, match="are: none"):
        given(app(), configure).aggregate.inputs({"town": "Delft"})


def test_a_feature_that_was_added_later_is_neutral() -> None:
    configured = App.Configured(
        "x",
        2,
        NOW,
        number=1,
        model=MODEL,
        prompt="",
        variables=[],
        datasets=[],
        retrieval=RETRIEVAL,
        features=cast("Features", {"opening_statement": "Hello."}),
    )
    it = given(app()).aggregate
    configured.apply(it)
    assert it.configuration
    assert it.configuration["features"] == features({"opening_statement": "Hello."})


def test_is_for_chat_or_completion() -> None:
    fields = {"name": "Slogans", "description": ""}
    assert app().mode == "chat"
    assert App.begin(App.Created, new_id(), NOW, mode="completion", **fields).mode == "completion"


def test_is_renamed_once() -> None:
    given(app()).once(
        lambda app: app.rename(NOW, name="Guide", description="Other"), App.Renamed, name="Guide", description="Other"
    )


def test_has_an_icon_until_it_is_removed() -> None:
    icon = Icon(type="emoji", icon="⚓", media_type=None, background="#ffead5")
    scenario = given(app()).once(lambda app: app.set_icon(NOW, icon=icon), App.IconSet, icon=icon)
    scenario.once(lambda app: app.set_icon(NOW, icon=None), App.IconSet, icon=None)


def test_has_a_site() -> None:
    site = cast("Site", {"title": "Ask", "icon": None})
    given(app()).once(lambda app: app.set_site(NOW, site=site), App.SiteSet, site=site)


def test_stored_answers_are_set_and_their_model_follows() -> None:
    def reply(it: App, **fields: Any) -> None:
        it.set_annotation_reply(NOW, **{"enabled": True, "score_threshold": 0.9, "embedding": None, **fields})

    def embedded(it: App) -> None:
        it.annotations_embedded(NOW, embedding_model="a-model")

    given(app()).once(reply, App.AnnotationReplySet, enabled=True, score_threshold=0.9, embedding=None)
    given(app(), reply).when(lambda it: reply(it, enabled=False)).then(App.AnnotationReplySet, enabled=False)
    scenario = given(app(), reply).once(embedded, App.AnnotationsEmbedded, embedding_model="a-model")
    assert scenario.aggregate.annotation_model == "a-model"
    given(app(), lambda it: it.delete(NOW)).when(embedded).nothing()


FILES = FileSettings(types=["image", "document"], most=2, methods=["local_file"], detail="low")


@pytest.mark.parametrize(
    ("allowed", "files", "fault"),
    [
        (FILES, [], None),
        (None, [], None),
        (FILES, [("image", "local_file"), ("document", "local_file")], None),
        (None, [("image", "local_file")], ("not_allowed", "files")),
        (FILES, [("image", "local_file"), ("audio", "local_file")], ("not_allowed", "files.1.type")),
        (FILES, [("image", "remote_url")], ("not_allowed", "files.0.url")),
        ({**FILES, "methods": ["remote_url"]}, [("image", "local_file")], ("not_allowed", "files.0.digest")),
        (FILES, [("image", "local_file")] * 3, ("too_many", "files")),
    ],
)
def test_takes_the_files_that_its_configuration_allows(
    allowed: Any, files: list[tuple[str, str]], fault: tuple[str, str] | None
) -> None:
    known = given(app()).when(lambda app: configure(app, features=features({"files": allowed}))).aggregate
    if fault is None:
        known.check_files(files)
    else:
        with pytest.raises(Rejection) as raised:
            known.check_files(files)
        assert (raised.value.code, raised.value.field) == fault


@pytest.mark.parametrize(("model", "embedding"), [(None, None), ("b", {"provider": "builtin", "model": "b"})])
def test_a_snapshot_of_the_second_version_has_an_embedding_model_of_the_workers(
    model: str | None, embedding: dict[str, str] | None
) -> None:
    reply = {"enabled": True, "score_threshold": 0.9}
    state: dict[str, Any] = {"annotation_reply": {**reply, "embedding_model": model}}
    App.upcast_v2_v3(state)
    assert state == {"annotation_reply": {**reply, "embedding": embedding}}


def test_a_snapshot_of_an_app_that_gives_no_stored_answers_is_left_alone() -> None:
    state: dict[str, Any] = {"annotation_reply": None}
    App.upcast_v2_v3(state)
    assert state == {"annotation_reply": None}
