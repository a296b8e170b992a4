"""Commands of datasets, documents and segments."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.segmentation import (
    LEAST_TOKENS,
    LONGEST_SEPARATOR,
    MOST_PARENT_TOKENS,
    MOST_TOKENS,
    PARENT_TOKENS,
    SEPARATOR,
    Cleanup,
    ParentKind,
    Segmentation,
)
from domain.knowledge.segmentation import Mode as SegmentationMode
from handlers.commands.fields import (
    MAX_TEXT,
    Command,
    DatasetId,
    Description,
    DocumentId,
    FieldName,
    Fields,
    Id,
    Name,
    Part,
    Preparation,
    Scalar,
    at_most_64_kib,
    not_blank,
)
from handlers.commands.media_types import media_type_of

Separator = Annotated[str, Field(min_length=1, max_length=LONGEST_SEPARATOR)]


DocumentMetadata = Annotated[dict[Annotated[str, Field(min_length=1, max_length=64)], Scalar], Field(max_length=64)]


Written = Annotated[str, AfterValidator(not_blank), AfterValidator(at_most_64_kib)]
"""What somebody wrote into a segment."""


class CreateDataset(Command):
    """Create a knowledge base."""

    name: Name
    description: Description = ""


class ParentRules(Part):
    """What is given to the model in place of a small segment that was found: paragraphs, or the full document."""

    kind: ParentKind = "paragraph"
    separator: Separator | None = Field(
        None, description="Ends a parent; null: as many paragraphs under one heading as fit"
    )
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS, le=MOST_PARENT_TOKENS)] = Field(
        PARENT_TOKENS, description="What is longer becomes several parents"
    )


class SegmentationRules(Part):
    """How texts are cut into segments."""

    mode: SegmentationMode = "automatic"
    separator: Separator | None = Field(
        SEPARATOR, description="Ends a segment; null: segments are filled with sentences up to max_tokens"
    )
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS, le=MOST_TOKENS)] = MOST_TOKENS
    overlap: Annotated[int, Field(ge=0, le=MOST_TOKENS // 2)] = Field(
        0, description="So many of the last tokens of a segment are also in the next one of the same piece"
    )
    cleanup: Annotated[list[Cleanup], Field(max_length=8)] = Field([], description="What is done to the text before")
    parent: ParentRules | None = Field(None, description="For the mode parent_child; null: its defaults")

    @model_validator(mode="after")
    def _go_together(self) -> SegmentationRules:
        self.rules()
        return self

    def rules(self) -> Segmentation:
        """Raises: ValueError."""
        return Segmentation.of(self.model_dump())


class ConfigureDataset(Command):
    """Give a knowledge base another embedding model, which serves once the index is whole with it, or other rules by
    which documents are cut from now on; what is not given stays."""

    dataset: DatasetId
    embedding_model: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    segmentation: SegmentationRules | None = Field(
        None, description="Documents that are there are cut by these rules when they are processed anew"
    )

    @model_validator(mode="after")
    def _something(self) -> ConfigureDataset:
        if self.embedding_model is None and self.segmentation is None:
            raise ValueError("embedding_model or segmentation must be given")
        return self


class ReprocessDataset(Command):
    """Process all documents of a knowledge base anew from their files, by the rules of now; what can be found stays
    until all of the new can."""

    dataset: DatasetId


class DeleteDataset(Command):
    """Delete a knowledge base with all of its documents."""

    dataset: DatasetId


class UploadDocument(Command):
    """Put a document into a knowledge base: a blob by its digest, or a short text."""

    dataset: DatasetId
    name: Name = Field(description="A file name; only its last part is kept")
    media_type: Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+$", max_length=127)] | None = Field(
        None, description="Guessed from the name when null"
    )
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 in hex of a blob in the object store"
    )
    text: str | None = Field(None, description="The text itself, at most 256 KiB in UTF-8")
    metadata: DocumentMetadata = {}
    segmentation: SegmentationRules | None = Field(
        None, description="Rules of its own by which it is cut; null: those of the knowledge base"
    )

    @model_validator(mode="after")
    def _one_source(self) -> UploadDocument:
        if (self.digest is None) == (self.text is None):
            raise ValueError("give exactly one of digest and text")
        if self.text is not None and len(self.text.encode()) > MAX_TEXT:
            raise ValueError("text must not exceed 256 KiB; put it into the object store and give its digest")
        if len(orjson.dumps(self.metadata)) > 16 * 1024:
            raise ValueError("metadata must not exceed 16 KiB")
        return self


class ReprocessDocument(Command):
    """Process a document anew from its file, by the rules of now; what can be found stays until all of the new can."""

    document: DocumentId
    segmentation: SegmentationRules | None = Field(
        None, description="Rules of its own from now on; null: those that it has, or those of its knowledge base"
    )
    inherit: bool = Field(False, description="Give up rules of its own: those of its knowledge base count again")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ReprocessDocument:
        if self.inherit and self.segmentation is not None:
            raise ValueError("inherit cannot be true where segmentation is given")
        return self


class DeleteDocument(Command):
    """Delete a document in whatever state it is; it is never found again."""

    document: DocumentId


class DisableDocument(Command):
    """Let nothing of a document be found until it is enabled."""

    document: DocumentId


class EnableDocument(Command):
    """Let a document be found again that was disabled."""

    document: DocumentId


class ArchiveDocument(Command):
    """Put a document aside: nothing of it can be found, and nothing be changed."""

    document: DocumentId


class UnarchiveDocument(Command):
    """Take a document back that was archived."""

    document: DocumentId


class RenameDocument(Command):
    """Give a document another name."""

    document: DocumentId
    name: Name


class SetMetadata(Command):
    """Set values of a document's metadata; null takes one away, what is not named stays."""

    document: DocumentId
    metadata: DocumentMetadata = Field(min_length=1)

    @model_validator(mode="after")
    def _small(self) -> SetMetadata:
        if len(orjson.dumps(self.metadata)) > 16 * 1024:
            raise ValueError("metadata must not exceed 16 KiB")
        return self


class AddMetadataField(Command):
    """Define a field of the metadata of a knowledge base's documents; their values must be of its type."""

    dataset: DatasetId
    name: FieldName
    type: Literal["string", "number", "time"]


class RenameMetadataField(Command):
    """Give a metadata field another name; the values that documents have of it keep to it."""

    dataset: DatasetId
    name: FieldName
    new_name: FieldName


class RemoveMetadataField(Command):
    """Remove a metadata field, and the values that documents have of it."""

    dataset: DatasetId
    name: FieldName


class AddSegment(Command):
    """Add a segment to a document; with an answer, the content is the question."""

    document: DocumentId
    content: Written
    answer: Written | None = None
    after: Id | None = Field(None, description="Segment that it follows; null: the last one")


class EditSegment(Command):
    """Give a segment another text or another answer; null leaves it as it is."""

    document: DocumentId
    segment: Id
    content: Written | None = None
    answer: Written | None = None

    @model_validator(mode="after")
    def _something(self) -> EditSegment:
        if self.content is None and self.answer is None:
            raise ValueError("give content, answer or both")
        return self


class DisableSegment(Command):
    """Let a segment not be found until it is enabled."""

    document: DocumentId
    segment: Id


class EnableSegment(Command):
    """Let a segment be found again that was disabled."""

    document: DocumentId
    segment: Id


class DeleteSegment(Command):
    """Delete a segment."""

    document: DocumentId
    segment: Id


class RetryDocument(Command):
    """Try a document again that ended in error."""

    document: DocumentId


async def store_document(command: UploadDocument, preparation: Preparation) -> Fields:
    """Make sure of the blob, and name the type."""
    if command.text is not None:
        data = command.text.encode()
        digest, size = await preparation.blobs.put(preparation.tenant, data), len(data)
    else:
        digest = str(command.digest)
        found = await preparation.blobs.size(preparation.tenant, digest)
        if found is None:
            sentence = f"digest: there is no blob {preparation.tenant}/{digest}; put it into the object store first."
            raise Rejection("not_found", sentence, "digest")
        size = found
    name = PurePosixPath(PureWindowsPath(command.name).as_posix()).name
    if name in ("", ".", ".."):
        raise Rejection("invalid", "name: must end in a file name.", "name")
    guessed = media_type_of(name) or ("text/plain" if command.text is not None else "application/octet-stream")
    dataset = preparation.named["dataset"]
    assert isinstance(dataset, Dataset)
    dataset.check_metadata(command.metadata)
    return {
        "dataset": command.dataset,
        "name": name,
        "media_type": command.media_type or guessed,
        "digest": digest,
        "size": size,
        "metadata": command.metadata,
        "segmentation": rules_of(command.segmentation),
    }


async def checked(command: SetMetadata, preparation: Preparation) -> Fields:
    """The values, which are of the types that the dataset wants."""
    document = await preparation.repository.get(Document, preparation.tenant, command.document)
    if document:
        dataset = await preparation.repository.get(Dataset, preparation.tenant, document.dataset)
        if dataset:
            dataset.check_metadata(command.metadata)
    return command.model_dump()


async def new_segment(command: AddSegment, preparation: Preparation) -> Fields:
    return {**command.model_dump(), "segment": preparation.id}


async def new_field(command: AddMetadataField, preparation: Preparation) -> Fields:
    return {**command.model_dump(), "field": preparation.id}


def rules_of(segmentation: SegmentationRules | None) -> Fields | None:
    return segmentation.rules().plain() if segmentation else None


async def own_rules(command: ReprocessDocument, preparation: Preparation) -> Fields:
    return {**command.model_dump(), "segmentation": rules_of(command.segmentation)}


async def known_model(command: ConfigureDataset, preparation: Preparation) -> Fields:
    """Make sure that the embedding model is one of those in use."""
    if command.embedding_model and command.embedding_model not in preparation.embedding_models:
        raise Rejection(
            "unknown_model",
            f"embedding_model: no worker runs {command.embedding_model!r}; they run "
            f"{', '.join(preparation.embedding_models)}. Put it into HEADRACE_EMBEDDING_MODELS of all workers first.",
            "embedding_model",
        )
    return {**command.model_dump(), "segmentation": rules_of(command.segmentation)}
