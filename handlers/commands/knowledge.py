"""Commands of datasets, documents and segments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from domain.builtin import BUILTIN
from domain.knowledge import curation
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
from handlers.commands.embedding import EmbeddingModelName, EmbeddingProvider, chosen_embedding
from handlers.commands.fields import (
    MAX_TEXT,
    BlobKey,
    Command,
    DatasetId,
    Description,
    DocumentId,
    FieldName,
    Id,
    Name,
    Part,
    Scalar,
    SegmentId,
    Sha256,
    at_most,
    not_blank,
)
from handlers.commands.packed import file_name, kept_blob, store_file, unpacked
from handlers.commands.preparation import Change, Make, Preparation
from handlers.media_types import media_type_of

Separator = Annotated[str, Field(min_length=1, max_length=LONGEST_SEPARATOR)]

DocumentMetadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Scalar], Field(max_length=64), at_most(kib=16)
]

MediaType = Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+$", max_length=127)]

LARGEST_OF_USER = 32 * 2**20
"""Maximum bytes of a file that a user uploads: it is sealed in memory."""

Written = Annotated[str, AfterValidator(not_blank), at_most(kib=64)]
"""A text that a person writes into a segment."""


class CreateDataset(Command):
    """Create a knowledge base."""

    name: Name
    description: Description = ""
    embedding_provider: EmbeddingProvider = BUILTIN
    embedding_model: EmbeddingModelName | None = Field(
        None, description="Embedding model; null for the tenant's default one, or else that of the workers"
    )


class ParentRules(Part):
    """The text given to the model in place of a small segment that was found: paragraphs, or the full document."""

    kind: ParentKind = Field("paragraph", description="Kind of parent")
    separator: Separator | None = Field(
        None, description="End of a parent; null for as many paragraphs under one heading as fit"
    )
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS, le=MOST_PARENT_TOKENS)] = Field(
        PARENT_TOKENS, description="Maximum tokens of a parent; a longer text becomes several parents"
    )


class SegmentationRules(Part):
    """Rules for splitting texts into segments."""

    mode: SegmentationMode = Field("automatic", description="Kind of segmentation")
    separator: Separator | None = Field(
        SEPARATOR, description="End of a segment; null to fill segments with sentences up to max_tokens"
    )
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS, le=MOST_TOKENS)] = Field(
        MOST_TOKENS, description="Maximum tokens of a segment"
    )
    overlap: Annotated[int, Field(ge=0, le=MOST_TOKENS // 2)] = Field(
        0, description="Number of tokens that a segment repeats from the end of the one before, within the same piece"
    )
    cleanup: Annotated[list[Cleanup], Field(max_length=8)] = Field([], description="Cleanup of the text before")
    parent: ParentRules | None = Field(None, description="Parents, in mode parent_child; null for the defaults")

    @model_validator(mode="after")
    def _go_together(self) -> SegmentationRules:
        self.rules()
        return self

    def rules(self) -> Segmentation:
        """Raises: ValueError."""
        return Segmentation.of(self.model_dump())


class ConfigureDataset(Command):
    """Choose another embedding model for a knowledge base, which serves once the index is rebuilt with it, or other
    segmentation rules for its documents; null changes nothing."""

    dataset: DatasetId
    embedding_provider: EmbeddingProvider = BUILTIN
    embedding_model: EmbeddingModelName | None = Field(None, description="Embedding model")
    segmentation: SegmentationRules | None = Field(
        None, description="Segmentation rules; existing documents keep their segments until they are reprocessed"
    )

    @model_validator(mode="after")
    def _something(self) -> ConfigureDataset:
        if self.embedding_model is None and self.segmentation is None:
            raise ValueError("Give embedding_model or segmentation")
        return self


class ReprocessDataset(Command):
    """Reprocess all documents of a knowledge base from their files, by the current rules; their previous segments can
    be found until all new ones can."""

    dataset: DatasetId


class DeleteDataset(Command):
    """Delete a knowledge base with all of its documents."""

    dataset: DatasetId


def _short(text: str) -> str:
    if len(text.encode()) > MAX_TEXT:
        raise ValueError("Must not exceed 256 KiB in UTF-8; put it into the object store and give its digest")
    return text


class UploadDocument(Command):
    """Upload a document to a knowledge base: a blob by its digest, or a short text."""

    dataset: DatasetId
    name: Name = Field(description="File name; only its last part is kept")
    media_type: MediaType | None = Field(None, description="Media type; null to guess it from the name")
    digest: Sha256 | None = Field(None, description="SHA-256 in hex of a blob in the object store")
    text: Annotated[str, AfterValidator(_short)] | None = Field(
        None, description="The text itself, at most 256 KiB in UTF-8"
    )
    metadata: DocumentMetadata = Field({}, description="Metadata, at most 16 KiB of JSON")
    segmentation: SegmentationRules | None = Field(
        None, description="Segmentation rules of its own; null for those of the knowledge base"
    )
    user: Name | None = Field(
        None, description="End user who uploads it, with whose erasure it goes; null for shared knowledge"
    )
    key: BlobKey | None = Field(
        None,
        description="Key of the blob in base64, with `user`: the blob is a nonce of 12 bytes and the file under "
        "AES-256-GCM",
    )

    @model_validator(mode="after")
    def _one_source(self) -> UploadDocument:
        if (self.digest is None) == (self.text is None):
            raise ValueError("Give exactly one of digest and text")
        if (self.key is None) != (self.user is None or self.digest is None):
            raise ValueError("Give a key with user and digest, and only then: a user's file must be encrypted")
        return self


class ReprocessDocument(Command):
    """Reprocess a document from its file, by the current rules; its previous segments can be found until all new ones
    can."""

    document: DocumentId
    segmentation: SegmentationRules | None = Field(
        None, description="Segmentation rules of its own from now on; null to keep those that it has"
    )
    inherit: bool = Field(False, description="Drop rules of its own, and use those of its knowledge base again")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ReprocessDocument:
        if self.inherit and self.segmentation is not None:
            raise ValueError("Give either inherit or segmentation")
        return self


class DeleteDocument(Command):
    """Delete a document in any state; it can never be found again."""

    document: DocumentId


class DisableDocument(Command):
    """Hide a document from searches until it is enabled."""

    document: DocumentId


class EnableDocument(Command):
    """Let a disabled document be found again."""

    document: DocumentId


class ArchiveDocument(Command):
    """Archive a document: it can neither be found nor changed."""

    document: DocumentId


class UnarchiveDocument(Command):
    """Take an archived document back."""

    document: DocumentId


class RenameDocument(Command):
    """Rename a document."""

    document: DocumentId
    name: Name


class SetMetadata(Command):
    """Set values of a document's metadata; other values are unchanged."""

    document: DocumentId
    metadata: DocumentMetadata = Field(
        min_length=1, description="Values by name, at most 16 KiB of JSON; null removes a value"
    )


class AddMetadataField(Command):
    """Define a metadata field for a knowledge base's documents; their values must have its type."""

    dataset: DatasetId
    name: FieldName
    type: Literal["string", "number", "time"] = Field(description="Type; a time is ISO 8601, or seconds since 1970")


class RenameMetadataField(Command):
    """Rename a metadata field, with the values that documents have of it."""

    dataset: DatasetId
    name: FieldName
    new_name: FieldName = Field(description="New name of the field")


class RemoveMetadataField(Command):
    """Remove a metadata field, and the values that documents have of it."""

    dataset: DatasetId
    name: FieldName


class AddSegment(Command):
    """Add a segment to a document."""

    document: DocumentId
    content: Written = Field(description="Text; with an answer, the question")
    answer: Written | None = Field(None, description="Answer that the model is given with it; null for none")
    after: Id | None = Field(None, description="Segment that it follows; null for the last one")


class EditSegment(Command):
    """Edit the text or the answer of a segment."""

    document: DocumentId
    segment: SegmentId
    content: Written | None = Field(None, description="New text; null leaves it unchanged")
    answer: Written | None = Field(None, description="New answer; null leaves it unchanged")

    @model_validator(mode="after")
    def _something(self) -> EditSegment:
        if self.content is None and self.answer is None:
            raise ValueError("Give content, answer or both")
        return self


class DisableSegment(Command):
    """Hide a segment from searches until it is enabled."""

    document: DocumentId
    segment: SegmentId


class EnableSegment(Command):
    """Let a disabled segment be found again."""

    document: DocumentId
    segment: SegmentId


class DeleteSegment(Command):
    """Delete a segment."""

    document: DocumentId
    segment: SegmentId


class RetryDocument(Command):
    """Retry a document that failed."""

    document: DocumentId


def rules_of(segmentation: SegmentationRules | None) -> dict[str, Any] | None:
    return segmentation.rules().plain() if segmentation else None


async def create(command: CreateDataset, given: Preparation) -> Make[Dataset]:
    name, description = command.name, command.description
    embedding = await chosen_embedding(given, command.embedding_provider, command.embedding_model)
    return lambda id, at: Dataset.begin(
        Dataset.Created, id, at, name=name, description=description, embedding=embedding
    )


async def configure(command: ConfigureDataset, given: Preparation) -> Change[Dataset]:
    rules, embedding = rules_of(command.segmentation), None
    if command.embedding_model or command.embedding_provider != BUILTIN:
        embedding = await chosen_embedding(given, command.embedding_provider, command.embedding_model)
    return lambda dataset, at: dataset.configure(at, embedding=embedding, segmentation=rules)


async def add_field(command: AddMetadataField, given: Preparation) -> Change[Dataset]:
    return lambda dataset, at: dataset.add_metadata_field(at, field=given.id, name=command.name, type=command.type)


def rename_field(dataset: Dataset, at: datetime, command: RenameMetadataField) -> None:
    dataset.rename_metadata_field(at, name=command.name, new_name=command.new_name)


def remove_field(dataset: Dataset, at: datetime, command: RemoveMetadataField) -> None:
    dataset.remove_metadata_field(at, name=command.name)


async def upload(command: UploadDocument, given: Preparation) -> Make[Document]:
    """Guess the media type, check the metadata, then store the text, or find the blob."""
    name = file_name(command.name, "name")
    guessed = media_type_of(name) or ("text/plain" if command.text is not None else "application/octet-stream")
    given.the(Dataset, "dataset").check_metadata(command.metadata)
    digest, size = await _stored(command, given)
    return lambda id, at: Document.upload(
        id,
        at,
        dataset=command.dataset,
        name=name,
        media_type=command.media_type or guessed,
        digest=digest,
        size=size,
        metadata=command.metadata,
        person=given.person,
        segmentation=rules_of(command.segmentation),
    )


async def _stored(command: UploadDocument, given: Preparation) -> tuple[str, int]:
    """The digest of the file's blob, and the size of the file; a user's is sealed with the person's key."""
    if command.text is not None:
        data = command.text.encode()
    elif command.key is None:
        return str(command.digest), await kept_blob(given, str(command.digest), "digest")
    else:
        data = await unpacked(given, str(command.digest), command.key, LARGEST_OF_USER)
    return await store_file(given, data), len(data)


def rename(document: Document, at: datetime, command: RenameDocument) -> None:
    document.rename(at, name=command.name)


async def set_metadata(command: SetMetadata, given: Preparation) -> Change[Document]:
    """Set the values, after a check of the types that the dataset defines."""
    document = await given.get(Document, command.document)
    dataset = document and await given.get(Dataset, document.dataset)
    if dataset:
        dataset.check_metadata(command.metadata)
    return lambda document, at: document.set_metadata(at, metadata=command.metadata)


def reprocess(document: Document, at: datetime, command: ReprocessDocument) -> None:
    document.reprocess(at, segmentation=rules_of(command.segmentation), inherit=command.inherit)


async def add_segment(command: AddSegment, given: Preparation) -> Change[Document]:
    content, answer, after = command.content, command.answer, command.after
    return lambda document, at: curation.add_segment(
        document, at, segment=given.id, content=content, answer=answer, after=after
    )


def edit_segment(document: Document, at: datetime, command: EditSegment) -> None:
    segment, content, answer = command.segment, command.content, command.answer
    curation.edit_segment(document, at, segment=segment, content=content, answer=answer)


def disable_segment(document: Document, at: datetime, command: DisableSegment) -> None:
    curation.disable_segment(document, at, segment=command.segment)


def enable_segment(document: Document, at: datetime, command: EnableSegment) -> None:
    curation.enable_segment(document, at, segment=command.segment)


def delete_segment(document: Document, at: datetime, command: DeleteSegment) -> None:
    curation.delete_segment(document, at, segment=command.segment)
