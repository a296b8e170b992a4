"""Files of questions, as a model is given them: images and recordings as they are, documents by their passages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast

import structlog

from domain.aggregate import Rejection
from domain.chat.app import Configuration
from domain.chat.conversation import Conversation, Message, question
from domain.chat.file import LIMITS, File, FileLimits, mistaken
from domain.knowledge.document import segment_id
from domain.knowledge.segments import Segment, decode_segments, encode_segments
from domain.models.abilities import SENSES, incapable
from handlers.abilities import Abilities
from handlers.files import Files, Kind
from handlers.media_types import media_type_as
from handlers.models.model_calls import milliseconds
from handlers.models.prompt import estimate, file_tokens
from handlers.ports.documents import Extractor, Segmenter, Unreadable
from handlers.ports.files import Fetch, NotFetched, Ranking
from handlers.ports.index import Entry, Hit
from handlers.ports.models import Attachment, ModelError
from handlers.work.attempt import Attempt

log = structlog.get_logger(__name__)

T = TypeVar("T")

EARLIER_BYTES = 20 * 2**20
"""Maximum size of the images and recordings of earlier messages that are sent again, in bytes."""


@dataclass(slots=True)
class Given:
    """Files for a model: those that are sent with messages, by message; passages of documents, best first; and names of
    files by id. `left_out` images and recordings of earlier messages are not sent."""

    attachments: dict[str, list[Attachment]] = field(default_factory=dict)
    passages: list[Hit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    left_out: int = 0


class _Asked(NamedTuple):
    """A file, and the message that it is of."""

    message: str
    file: File


@dataclass(frozen=True, slots=True)
class MessageFiles:
    files: Files
    fetch: Fetch
    extractor: Extractor
    segmenter: Segmenter
    ranking: Ranking
    abilities: Abilities
    limits: FileLimits = LIMITS

    async def __call__(self, attempt: Attempt[Conversation], configuration: Configuration) -> Given:
        """Fetch and read what is not stored yet, each a recorded step, and return the files of the question and of the
        history. Raises: ModelError, Rejection; Ended, Unavailable.
        """
        message, given = attempt.item, Given()
        earlier = attempt.aggregate.history(message)
        if not any(known.get("files") for known in (*earlier.values(), attempt.aggregate.messages[message])):
            return given
        for file in attempt.aggregate.files(message):
            await self._complete(attempt, file)
        await self._attach(attempt, configuration, earlier, given)
        await self._read(attempt, configuration, earlier, given)
        return given

    # --- steps ---

    async def _complete(self, attempt: Attempt[Conversation], file: File) -> None:
        """Fetch the file, and read it if it is a document, unless an earlier attempt did."""
        if file["digest"] is None:
            await self._fetched(attempt, file)
        [file] = attempt.aggregate.files(attempt.item, file["id"])
        if file["type"] == "document" and not file.get("segments"):
            await self._extracted(attempt, file)

    async def _fetched(self, attempt: Attempt[Conversation], file: File) -> None:
        began, most = time.perf_counter(), self.limits.of(file["type"])
        try:
            found = await self.fetch(attempt.tenant, str(file["url"]), most)
        except NotFetched as error:
            reason = f"File {file['name']} was not fetched. {error.reason}"
            if error.code == "too_large":
                raise Rejection("too_large", reason, "files") from None
            raise Rejection("file_not_fetched", reason, "files") from None
        type, name = file["type"], file["name"]
        media_type = media_type_as(type, found.data, name)
        if media_type is None:
            raise Rejection("unsupported_type", mistaken(type), "files")
        if media_type == "application/octet-stream" and found.media_type:
            media_type = found.media_type
        digest = await self._put(attempt, "file", found.data)

        def fetched(conversation: Conversation, at: datetime) -> None:
            conversation.fetched(
                at,
                message=attempt.item,
                file=file["id"],
                digest=digest,
                media_type=media_type,
                size=len(found.data),
                address=found.address,
                duration_ms=milliseconds(began),
            )

        await attempt.step(f"fetch:{file['id']}", fetched)

    async def _extracted(self, attempt: Attempt[Conversation], file: File) -> None:
        data = await self._get(attempt, "file", str(file["digest"]))
        try:
            text = await self.extractor.extract(attempt.tenant, data, str(file["media_type"]), file["name"])
            segments = await self.segmenter.segment(attempt.tenant, text)
        except Unreadable as error:
            raise Rejection(error.code, f"File {file['name']} cannot be read. {error}", "files") from None
        if not segments:
            raise Rejection("no_text", f"File {file['name']} cannot be read: it holds no text.", "files")
        digest = await self._put(
            attempt, "segments", await asyncio.to_thread(encode_segments, self.segmenter.model, segments)
        )

        def read(conversation: Conversation, at: datetime) -> None:
            conversation.read(
                at,
                message=attempt.item,
                file=file["id"],
                segments=digest,
                count=len(segments),
                pages=text.pages,
                characters=text.characters,
                warnings=text.warnings,
            )

        await attempt.step(f"read:{file['id']}", read)

    # --- images and recordings ---

    async def _attach(
        self,
        attempt: Attempt[Conversation],
        configuration: Configuration,
        earlier: Mapping[str, Message],
        given: Given,
    ) -> None:
        """Load the images and recordings of the question; and of the history, newest first, those that fit."""
        model = configuration["model"]
        provider, name = model["provider"], model["name"]
        own = _senses(attempt.item, attempt.aggregate.messages[attempt.item])
        others = [asked for id, known in earlier.items() for asked in _senses(id, known)]
        if not own and not others:
            return
        able = await self.abilities.of(attempt.tenant, provider, name)
        for _, file in own:
            if reason := incapable(able, provider, name, file["type"]):
                raise ModelError("unsupported", reason)
        room = model["context_window"] - model["max_tokens"]
        fitting = _fitting([each for each in others if not incapable(able, provider, name, each.file["type"])], room)
        given.left_out = len(others) - len(fitting)
        settings = configuration["features"]["files"]
        detail = settings["detail"] if settings else ""
        for message, file in (*own, *fitting):
            data = await self._get(attempt, "file", str(file["digest"]))
            attachment = Attachment(
                cast("Any", file["type"]),
                str(file["media_type"]),
                data,
                file["name"],
                detail if file["type"] == "image" else "",
                str(file["digest"]),
            )
            given.attachments.setdefault(message, []).append(attachment)

    # --- documents ---

    async def _read(
        self,
        attempt: Attempt[Conversation],
        configuration: Configuration,
        earlier: Mapping[str, Message],
        given: Given,
    ) -> None:
        """Rank the passages of the documents of the question and of the history, at most `limits.number` of them."""
        messages = (attempt.aggregate.messages[attempt.item], *earlier.values())
        documents = [file for known in messages for file in known.get("files", ()) if file.get("segments")]
        found: list[tuple[File, Segment]] = []
        for file in documents[: self.limits.number]:
            blob = await self._get(attempt, "segments", str(file["segments"]))
            _, segments = await asyncio.to_thread(decode_segments, blob)
            found += [(file, segment) for segment in segments if not segment.is_parent]
            given.names[file["id"]] = file["name"]
        texts = [_text(segment) for _, segment in found]
        model = configuration["model"]
        order: Sequence[int] = range(len(found))
        if sum(map(estimate, texts)) > (model["context_window"] - model["max_tokens"]) // 2:
            order = await self._ranked(attempt, texts)
        given.passages = [_hit(*found[number], rank) for rank, number in enumerate(order, 1)]

    async def _ranked(self, attempt: Attempt[Conversation], texts: Sequence[str]) -> Sequence[int]:
        """The numbers of the texts, the best for the question first; in their order where they cannot be ranked."""
        try:
            return await self.ranking.ranked(attempt.tenant, question(attempt.aggregate.messages[attempt.item]), texts)
        except ModelError as error:
            log.warning("files.not_ranked", tenant=attempt.tenant, message=attempt.item, reason=error.reason)
            return range(len(texts))

    # --- blobs ---

    async def _get(self, attempt: Attempt[Conversation], kind: Kind, digest: str) -> bytes:
        return await _kept(self.files.get(attempt.tenant, attempt.metadata.person, kind, digest))

    async def _put(self, attempt: Attempt[Conversation], kind: Kind, data: bytes) -> str:
        return await _kept(self.files.put(attempt.tenant, attempt.metadata.person, kind, data))


async def _kept(access: Awaitable[T]) -> T:
    """Await an access to a blob. Raises: Rejection `erased` when it cannot be read any more."""
    try:
        return await access
    except (KeyError, ValueError):
        raise Rejection("erased", "A file of the question was erased, or its user was.", "files") from None


def _senses(message: str, known: Message) -> list[_Asked]:
    """The stored images and recordings of a message."""
    return [_Asked(message, file) for file in known.get("files", ()) if file["type"] in SENSES and file["digest"]]


def _fitting(files: Sequence[_Asked], room: int) -> list[_Asked]:
    """The first files that together have at most `room` tokens and `EARLIER_BYTES`."""
    fitting, size = list[_Asked](), 0
    for asked in files:
        bytes = asked.file["size"] or 0
        room -= file_tokens(asked.file["type"], bytes)
        size += bytes
        if room < 0 or size > EARLIER_BYTES:
            break
        fitting.append(asked)
    return fitting


def _text(segment: Segment) -> str:
    return "\n\n".join(filter(None, (segment.heading, segment.content)))


def _hit(file: File, segment: Segment, rank: int) -> Hit:
    """The segment as a passage; the text of a person is repeated with each prompt, and sealed with it."""
    id = segment_id(file["id"], str(file.get("segments")), segment.position)
    entry = Entry(id, segment.position, segment.content, segment.page, segment.heading)
    return Hit("", file["id"], entry, 1 / rank, personal=True)
