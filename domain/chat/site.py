"""The way an app is shown: its icon, and its site for end users."""

from __future__ import annotations

from typing import Annotated, TypedDict


class Icon(TypedDict):
    """An emoji, or an image in a blob."""

    type: Annotated[str, "`emoji` or `image`."]
    icon: Annotated[str, "Emoji, or SHA-256 of the image's blob."]
    media_type: Annotated[str | None, "Media type of the image; null for an emoji."]
    background: Annotated[str | None, "Background, like `#ffead5`; null for none."]


class Site(TypedDict):
    """The page of an app for end users, as data for the clients that show it."""

    title: Annotated[str, "Title; empty for the app's name."]
    icon: Annotated[Icon | None, "Icon; null for the app's."]
    description: Annotated[str, "Description, for end users."]
    copyright: Annotated[str, "Copyright notice."]
    privacy_policy: Annotated[str, "Privacy policy: a text, or its address."]
    custom_disclaimer: Annotated[str, "Disclaimer below the conversation."]
    input_placeholder: Annotated[str, "Text in the empty input field."]
    default_language: Annotated[str, "Language of the page, like `en-US`."]
    chat_color_theme: Annotated[str | None, "Colour of the conversation, like `#1c64f2`; null for the client's."]
    chat_color_theme_inverted: Annotated[bool, "True if text and background change their colours."]
    show_workflow_steps: Annotated[bool, "True if the steps of workflows are shown."]
    use_icon_as_answer_icon: Annotated[bool, "True if answers have the icon."]
