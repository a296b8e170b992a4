"""Commands of tags."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.chat.tags import Tags
from handlers.commands.fields import AppId, Command, DatasetId, Id, not_blank
from handlers.commands.preparation import MakeOrChange, Preparation

Kind = Literal["app", "knowledge"]
KindField = Annotated[Kind, Field(description="Use of the tag: for apps, or for knowledge bases")]
TagId = Annotated[Id, Field(description="Tag")]
TagName = Annotated[
    str,
    Field(max_length=50, description="Name, for people; unique among the tags of the kind"),
    AfterValidator(not_blank),
]


class CreateTag(Command):
    """Create a tag for apps or for knowledge bases."""

    kind: KindField
    name: TagName


class RenameTag(Command):
    """Rename a tag."""

    kind: KindField
    tag: TagId
    name: TagName


class DeleteTag(Command):
    """Delete a tag, and take it from all that has it."""

    kind: KindField
    tag: TagId


class BindTag(Command):
    """Give a tag to an app or a knowledge base."""

    tag: TagId
    app: AppId | None = Field(None, description="App; null for a knowledge base")
    dataset: DatasetId | None = Field(None, description="Knowledge base; null for an app")

    @property
    def kind(self) -> Kind:
        return "app" if self.app else "knowledge"

    @property
    def target(self) -> str:
        return str(self.app or self.dataset)

    @model_validator(mode="after")
    def _names_one(self) -> BindTag:
        if bool(self.app) == bool(self.dataset):
            raise ValueError("Either an app or a dataset is needed")
        return self


class UnbindTag(BindTag):
    """Take a tag from an app or a knowledge base."""


async def create(command: CreateTag, given: Preparation) -> MakeOrChange[Tags]:
    def decide(tags: Tags | None, kind: str, at: datetime) -> Tags:
        tags = tags or Tags.begin(Tags.Begun, kind, at)
        tags.create(at, tag=given.id, name=command.name.strip())
        return tags

    return decide


async def rename(command: RenameTag, given: Preparation) -> MakeOrChange[Tags]:
    return _change(lambda tags, at: tags.rename(at, tag=command.tag, name=command.name.strip()))


async def delete(command: DeleteTag, given: Preparation) -> MakeOrChange[Tags]:
    return _change(lambda tags, at: tags.remove(at, tag=command.tag))


async def bind(command: BindTag, given: Preparation) -> MakeOrChange[Tags]:
    return _change(lambda tags, at: tags.bind(at, tag=command.tag, target=command.target))


async def unbind(command: UnbindTag, given: Preparation) -> MakeOrChange[Tags]:
    return _change(lambda tags, at: tags.unbind(at, tag=command.tag, target=command.target))


def _change(change: Callable[[Tags, datetime], None]) -> MakeOrChange[Tags]:
    def decide(tags: Tags | None, kind: str, at: datetime) -> Tags:
        if tags is None:
            raise Rejection("not_found", f"There are no tags of the kind {kind}.", "tag")
        change(tags, at)
        return tags

    return decide
