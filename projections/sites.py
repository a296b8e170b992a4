"""Pages of apps for end users: the table `sites`."""

from __future__ import annotations

from sqlalchemy import Boolean, Text

from domain.chat.app import App
from domain.log import Recorded, derived_id
from projections.apps import icon_columns
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row

sites = ReadModel(
    "sites",
    "Pages of apps for end users, as data for the clients that show them, at most one an app.",
    key("id", "Site."),
    required("app_id", Id, "App, in apps."),
    required("title", Text, "Title; empty for the app's name."),
    optional("icon_type", Text, "emoji or image; null for the app's icon."),
    optional("icon", Text, "Emoji, or SHA-256 of the image's blob; null for the app's icon."),
    optional("icon_background", Text, "Background, like #ffead5; null for none."),
    required("description", Text, "Description, for end users."),
    required("copyright", Text, "Copyright notice."),
    required("privacy_policy", Text, "Privacy policy: a text, or its address."),
    required("custom_disclaimer", Text, "Disclaimer below the conversation."),
    required("input_placeholder", Text, "Text in the empty input field."),
    required("default_language", Text, "Language of the page, like en-US."),
    optional("chat_color_theme", Text, "Colour of the conversation, like #1c64f2; null for the client's."),
    required("chat_color_theme_inverted", Boolean, "Text and background change their colours."),
    required("show_workflow_steps", Boolean, "The steps of workflows are shown."),
    required("use_icon_as_answer_icon", Boolean, "Answers have the icon."),
    required("created_by", Text, "Actor who set it last."),
    required("created_at", Time, "When it was set last."),
)
sites.clears(App.Deleted, column="app_id")


@sites.makes(App.SiteSet)
def site_set(event: App.SiteSet, message: Recorded) -> Row:
    return {
        **{name: value for name, value in event.site.items() if name != "icon"},
        **icon_columns(event.site["icon"]),
        "id": derived_id(f"site/{event.originator_id}"),
        "app_id": event.originator_id,
        "created_by": message.metadata.actor,
    }
