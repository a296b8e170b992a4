from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

import pytest

from domain.chat.app import AppWarning, features
from domain.chat.site import Icon, Site
from domain.log import derived_id
from projections.app_model_configs import app_model_configs, configuration_id
from projections.apps import apps
from projections.sites import sites
from tests.projections.history import MODEL, RETRIEVAL, History


@pytest.mark.parametrize("text", ["", "app/1", "水車/2"])
def test_derived_ids_are_uuids_of_version_5(text: str) -> None:
    assert derived_id(text) == str(uuid5(NAMESPACE_OID, text))


def test_given_nothing_when_an_app_is_created_then_it_has_a_row() -> None:
    history = History()
    app = history.app()
    assert history.rows(apps) == [
        {
            "tenant_id": "default",
            "id": app.id,
            "name": "Help",
            "description": "Answers.",
            "mode": "chat",
            "icon_type": None,
            "icon": None,
            "icon_background": None,
            "app_model_config_id": None,
            "workflow_id": None,
            "file": None,
            "file_configuration": None,
            "triggers_enabled": True,
            "created_by": "ada",
            "created_at": app.created_on,
            "updated_at": app.created_on,
            "log_position": 1,
        }
    ]


def test_given_an_app_when_it_is_configured_twice_then_both_configurations_stay_and_it_names_the_newest() -> None:
    history = History()
    app = history.app()
    history.configure(app, "Be brief.")
    history.configure(app, "Be exact.")

    (row,) = history.rows(apps)
    assert row["app_model_config_id"] == configuration_id(app.id, 2)
    assert (row["created_at"], row["updated_at"], row["log_position"]) == (app.created_on, app.modified_on, 3)
    configurations = sorted(history.rows(app_model_configs), key=lambda row: row["number"])
    assert [(row["number"], row["pre_prompt"]) for row in configurations] == [(1, "Be brief."), (2, "Be exact.")]
    assert configurations[1] == {
        "tenant_id": "default",
        "id": configuration_id(app.id, 2),
        "app_id": app.id,
        "number": 2,
        "provider": MODEL["provider"],
        "model_id": MODEL["name"],
        "route": None,
        "configs": {"max_tokens": 512, "context_window": 8192, "parameters": {}},
        "pre_prompt": "Be exact.",
        "user_input_form": [],
        "dataset_configs": {"datasets": ["some"], "retrieval": RETRIEVAL},
        "opening_statement": "",
        "suggested_questions": [],
        "more_like_this": {"enabled": False},
        "name_conversations": {"enabled": False},
        "suggested_questions_after_answer": {"enabled": False},
        "response_schema": None,
        "sensitive_word_avoidance": {"enabled": False, "configs": []},
        "speech_to_text": {"enabled": False},
        "text_to_speech": {"enabled": False, "voice": "", "language": "", "autoplay": False},
        "file_upload": {"enabled": False},
        "agent_mode": {"enabled": False},
        "retriever_resource": {"enabled": True},
        "warnings": [],
        "created_by": "ada",
        "created_at": app.modified_on,
        "log_position": 3,
    }


def test_given_two_apps_when_one_is_deleted_then_its_row_and_configurations_go() -> None:
    history = History()
    gone, kept = history.app(), history.app()
    history.configure(gone, "Be brief.")
    history.configure(kept, "Be exact.")
    gone.delete(history.now)
    history.record(gone)
    assert [row["id"] for row in history.rows(apps)] == [kept.id]
    assert [row["app_id"] for row in history.rows(app_model_configs)] == [kept.id]


def test_a_configuration_has_its_warnings() -> None:
    history = History()
    app = history.app()
    warning = AppWarning(code="ability_absent", field="model.parameters.tools", message="It lacks tools.")
    given = {"model": MODEL, "prompt": "", "variables": [], "datasets": [], "retrieval": RETRIEVAL}
    given["features"] = features({})
    app.configure(history.now, [warning], **given)  # type: ignore[typeddict-item]
    history.record(app)
    history.configure(app, "Be exact.")
    rows = sorted(history.rows(app_model_configs), key=lambda row: row["number"])
    assert [row["warnings"] for row in rows] == [[warning], []]


IMAGE = Icon(type="image", icon="d" * 64, media_type="image/png", background="#ffead5")


def site(title: str) -> Site:
    return Site(
        title=title,
        icon=IMAGE,
        description="",
        copyright="",
        privacy_policy="",
        custom_disclaimer="May be wrong.",
        input_placeholder="",
        default_language="de-DE",
        chat_color_theme=None,
        chat_color_theme_inverted=False,
        show_workflow_steps=True,
        use_icon_as_answer_icon=False,
    )


def test_given_an_app_when_it_gets_another_name_and_an_icon_then_its_row_has_them() -> None:
    history = History()
    app = history.app()
    app.rename(history.now, name="Guide", description="Knows.")
    app.set_icon(history.now, icon=IMAGE)
    history.record(app)
    (row,) = history.rows(apps)
    assert (row["name"], row["description"], row["updated_at"]) == ("Guide", "Knows.", app.modified_on)
    assert (row["icon_type"], row["icon"], row["icon_background"]) == ("image", "d" * 64, "#ffead5")
    app.set_icon(history.now, icon=None)
    history.record(app)
    (row,) = history.rows(apps)
    assert (row["icon_type"], row["icon"], row["icon_background"]) == (None, None, None)


def test_given_an_app_when_its_site_is_set_twice_then_it_has_one_row_until_it_is_deleted() -> None:
    history = History()
    app = history.app()
    for title in ("Ask", "Ask me"):
        app.set_site(history.now, site=site(title))
        at = history.record(app)
    (row,) = history.rows(sites)
    assert row["id"]
    assert row | {"id": ""} == {
        **{name: value for name, value in site("Ask me").items() if name != "icon"},
        "tenant_id": "default",
        "id": "",
        "app_id": app.id,
        "icon_type": "image",
        "icon": "d" * 64,
        "icon_background": "#ffead5",
        "created_by": "ada",
        "created_at": at,
        "log_position": 3,
    }
    app.delete(history.now)
    history.record(app)
    assert history.rows(sites) == []
