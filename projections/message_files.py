"""Files of questions: the tables `message_files` and `upload_files`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import BigInteger, Integer, Text

from domain.access.end_user import EndUser
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.chat.file import File
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row
from projections.messages import message_of, messages

message_files = ReadModel(
    "message_files",
    "Files of questions, one row each. They go with their conversation or app, or when the person is erased.",
    key("id", "File."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("message_id", Id, "Message whose question has the file, in messages."),
    required("position", Integer, "Number of the file in the question, from 1."),
    required("type", Text, "image, document or audio."),
    required("transfer_method", Text, "local_file: the sender stored it; remote_url: it is fetched from url."),
    required("name", Text, "File name."),
    optional("url", Text, "Address that it is fetched from; null for a stored one."),
    optional("upload_file_id", Id, "Stored file, in upload_files; null before it is fetched."),
    optional("pages", Integer, "Pages of a document; null before it is read, and where the format has none."),
    optional("segments", Integer, "Segments of a document; null before it is read."),
    required("belongs_to", Text, "user: the question has it."),
    required("created_by", Id, "End user who sent it, in end_users."),
    person(),
    required("created_at", Time, "When the question was asked."),
)
message_files.looked_up("message_id")
message_files.clears(Conversation.Deleted, column="conversation_id")
message_files.clears(App.Deleted, column="app_id")
message_files.clears(EndUser.Erased, column="person_id")

upload_files = ReadModel(
    "upload_files",
    "Stored files of questions, one row each: the blob is sealed with the key of the person who sent it. They go with "
    "their conversation or app, or when the person is erased.",
    key("id", "File, as in message_files."),
    required("app_id", Id, "App, in apps."),
    required("conversation_id", Id, "Conversation, in conversations."),
    required("used_by", Id, "Message whose question has the file, in messages."),
    required("hash", Id, "Digest of the blob."),
    required("name", Text, "File name."),
    required("extension", Text, "Extension of the name, in lower case and without a dot; empty for none."),
    required("mime_type", Text, "Media type by its content."),
    required("size", BigInteger, "Size in bytes."),
    required("created_by", Id, "End user who sent it, in end_users."),
    person(),
    required("created_at", Time, "When it was stored: the time of the question, or of the fetch."),
)
upload_files.looked_up("used_by")
upload_files.sorted_by("hash", "hash")
upload_files.clears(Conversation.Deleted, column="conversation_id")
upload_files.clears(App.Deleted, column="app_id")
upload_files.clears(EndUser.Erased, column="person_id")


def file_of(event: Any, message: Recorded) -> str:
    return event.file  # type: ignore[no-any-return]


def _of(asked: Row) -> Row:
    """The columns that both tables have from the row of the message."""
    shared = {name: asked[name] for name in ("app_id", "conversation_id", "person_id")}
    return {**shared, "created_by": asked["from_end_user_id"]}


@message_files.makes(Conversation.Asked, within=(messages, message_of))
def asked(event: Conversation.Asked, message: Recorded, asked: Row) -> list[Row]:
    return [
        {
            **_of(asked),
            "id": file["id"],
            "message_id": event.message,
            "position": position,
            "type": file["type"],
            "transfer_method": file["transfer_method"],
            "name": file["name"],
            "url": file["url"],
            "upload_file_id": file["id"] if file["digest"] else None,
            "belongs_to": "user",
        }
        for position, file in enumerate(event.files or (), 1)
    ]


@message_files.changes(Conversation.FileFetched, pick=file_of)
def fetched(row: Row, event: Conversation.FileFetched, message: Recorded) -> Row:
    return {"upload_file_id": event.file}


@message_files.changes(Conversation.FileRead, pick=file_of)
def read(row: Row, event: Conversation.FileRead, message: Recorded) -> Row:
    return {"pages": event.pages, "segments": event.count}


@upload_files.makes(Conversation.Asked, within=(messages, message_of))
def stored(event: Conversation.Asked, message: Recorded, asked: Row) -> list[Row]:
    return [_stored(file, event.message, _of(asked)) for file in event.files or () if file["digest"]]


@upload_files.makes(Conversation.FileFetched, within=(message_files, file_of))
def stored_later(event: Conversation.FileFetched, message: Recorded, file: Row) -> Row:
    shared = {name: file[name] for name in ("app_id", "conversation_id", "person_id", "created_by")}
    known: Any = {
        "id": event.file,
        "name": file["name"],
        "digest": event.digest,
        "media_type": event.media_type,
        "size": event.size,
    }
    return _stored(known, event.message, shared)


def _stored(file: File, message: str, shared: Row) -> Row:
    return {
        **shared,
        "id": file["id"],
        "used_by": message,
        "hash": file["digest"],
        "name": file["name"],
        "extension": PurePosixPath(file["name"]).suffix.removeprefix(".").lower(),
        "mime_type": file["media_type"],
        "size": file["size"],
    }
