"""Commands of the way an app is shown: its name, icon and site."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.chat.site import Icon, Site
from handlers.commands.fields import AppId, Command, Description, Name, Part
from handlers.commands.preparation import Change, Preparation

LARGEST_ICON = 1024 * 1024
"""Maximum bytes of an icon's image."""

_IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
"""Media types by the first bytes; a WebP has its mark at byte 8."""

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Line = Annotated[str, Field(max_length=255)]
Text = Annotated[str, Field(max_length=10_000)]


class IconFields(Part):
    """An emoji, or an image in the object store."""

    type: Literal["emoji", "image"] = Field(description="Kind of icon")
    icon: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="Emoji, or SHA-256 in hex of the image's blob: PNG, JPEG, GIF or WebP, at most 1 MiB"
    )
    background: Colour | None = Field(None, description="Background; null for none")


class SetIcon(Command):
    """Set the icon of an app, or remove it."""

    app: AppId
    icon: IconFields | None = Field(description="Icon; null for none")


class RenameApp(Command):
    """Change the name of an app, its description, or both."""

    app: AppId
    name: Name | None = Field(None, description="Name, for people; null for the present one")
    description: Description | None = Field(None, description="Description, for people; null for the present one")

    @model_validator(mode="after")
    def _changes_something(self) -> RenameApp:
        if self.name is None and self.description is None:
            raise ValueError("A name or a description is needed")
        return self


class SetTriggers(Command):
    """Let the triggers of an app's workflow begin runs, or not. Times that pass meanwhile are missed."""

    app: AppId
    enabled: bool = Field(description="True if they begin runs")


class SetSite(Command):
    """Set all fields of an app's site, the page that clients show to end users."""

    app: AppId
    title: Line = Field("", description="Title; empty for the app's name")
    icon: IconFields | None = Field(None, description="Icon; null for the app's")
    description: Description = Field("", description="Description, for end users")
    copyright: Line = Field("", description="Copyright notice")
    privacy_policy: Text = Field("", description="Privacy policy: a text, or its address")
    custom_disclaimer: Text = Field("", description="Disclaimer below the conversation")
    input_placeholder: Line = Field("", description="Text in the empty input field")
    default_language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] = Field(
        "en-US", description="Language of the page"
    )
    chat_color_theme: Colour | None = Field(None, description="Colour of the conversation; null for the client's")
    chat_color_theme_inverted: bool = Field(False, description="Let text and background change their colours")
    show_workflow_steps: bool = Field(True, description="Show the steps of workflows")
    use_icon_as_answer_icon: bool = Field(False, description="Show the icon with answers")


def rename(app: App, at: datetime, command: RenameApp) -> None:
    description = app.description if command.description is None else command.description
    app.rename(at, name=command.name or app.name, description=description)


async def set_icon(command: SetIcon, given: Preparation) -> Change[App]:
    icon = await _icon(command.icon, given)
    return lambda app, at: app.set_icon(at, icon=icon)


async def set_site(command: SetSite, given: Preparation) -> Change[App]:
    fields = command.model_dump(exclude={"app", "icon"})
    site = cast("Site", {**fields, "icon": await _icon(command.icon, given)})
    return lambda app, at: app.set_site(at, site=site)


async def _icon(fields: IconFields | None, given: Preparation) -> Icon | None:
    """Raises: Rejection `not_found`, `too_large` or `invalid`, unless an image is there and is one."""
    if fields is None:
        return None
    media_type = await _media_type(fields.icon, given) if fields.type == "image" else None
    return Icon(type=fields.type, icon=fields.icon, media_type=media_type, background=fields.background)


async def _media_type(digest: str, given: Preparation) -> str:
    size = await given.ports.blobs.keep(given.tenant, digest)
    if size is None:
        sentence = f"There is no blob {given.tenant}/{digest}; put the image into the object store first."
        raise Rejection("not_found", sentence, "icon.icon")
    if size > LARGEST_ICON:
        raise Rejection("too_large", f"An icon must not exceed {LARGEST_ICON // 2**20} MiB.", "icon.icon")
    data = await given.ports.blobs.get(given.tenant, digest)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for mark, media_type in _IMAGES.items():
        if data.startswith(mark):
            return media_type
    raise Rejection("invalid", "Must be a PNG, JPEG, GIF or WebP.", "icon.icon")


def set_triggers(app: App, at: datetime, command: SetTriggers) -> None:
    app.set_triggers(at, enabled=command.enabled)
