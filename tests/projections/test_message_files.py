from __future__ import annotations

from domain.access.end_user import EndUser
from domain.chat.conversation import Conversation
from domain.chat.file import File
from projections.dataset_retriever_resources import dataset_retriever_resources
from projections.end_users import end_user_id
from projections.message_files import message_files, upload_files
from tests.projections.history import History, citation, files_of


def asked(history: History) -> tuple[Conversation, str, list[File]]:
    """A question with a stored image and a document at an address."""
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation, id=conversation.id, files=files_of(conversation.id))
    return conversation, message, files_of(message)


def test_given_a_question_when_it_has_files_then_each_has_a_row_and_each_stored_one_another() -> None:
    history = History()
    conversation, message, [image, document] = asked(history)
    rows = {row["id"]: row for row in history.rows(message_files)}
    assert rows[image["id"]] == {
        "tenant_id": "default",
        "id": image["id"],
        "app_id": conversation.app,
        "conversation_id": conversation.id,
        "message_id": message,
        "position": 1,
        "type": "image",
        "transfer_method": "local_file",
        "name": "Lock.PNG",
        "url": None,
        "upload_file_id": image["id"],
        "pages": None,
        "segments": None,
        "belongs_to": "user",
        "created_by": end_user_id(conversation.app, "bo", None),
        "person_id": None,
        "created_at": rows[image["id"]]["created_at"],
        "log_position": 3,
    }
    assert (rows[document["id"]]["position"], rows[document["id"]]["upload_file_id"]) == (2, None)
    [stored] = history.rows(upload_files)
    assert stored == {
        "tenant_id": "default",
        "id": image["id"],
        "app_id": conversation.app,
        "conversation_id": conversation.id,
        "used_by": message,
        "hash": "d" * 64,
        "name": "Lock.PNG",
        "extension": "png",
        "mime_type": "image/png",
        "size": 12,
        "created_by": end_user_id(conversation.app, "bo", None),
        "person_id": None,
        "created_at": rows[image["id"]]["created_at"],
        "log_position": 3,
    }


def test_given_an_address_when_it_is_fetched_then_the_file_is_stored_and_read() -> None:
    history = History()
    conversation, message, [_, document] = asked(history)
    history.fetch(conversation, message, document["id"])
    [row] = [row for row in history.rows(message_files) if row["id"] == document["id"]]
    assert (row["upload_file_id"], row["pages"], row["segments"]) == (document["id"], 2, 4)
    [stored] = [row for row in history.rows(upload_files) if row["id"] == document["id"]]
    assert (stored["hash"], stored["mime_type"], stored["size"]) == ("e" * 64, "application/pdf", 900)
    assert (stored["name"], stored["extension"], stored["used_by"]) == ("plan", "", message)


def test_given_files_when_the_person_is_erased_then_their_rows_go() -> None:
    history = History()
    history.person = "the-person"
    conversation, message, [_, document] = asked(history)
    history.fetch(conversation, message, document["id"])
    assert len(history.rows(message_files)) == len(history.rows(upload_files)) == 2
    history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    assert history.rows(message_files) == history.rows(upload_files) == []


def test_given_files_when_the_conversation_is_deleted_then_their_rows_go() -> None:
    history = History()
    conversation, message, [_, document] = asked(history)
    history.fetch(conversation, message, document["id"])
    conversation.delete(history.now)
    history.record(conversation)
    assert history.rows(message_files) == history.rows(upload_files) == []


def test_given_an_answer_when_it_cites_a_file_then_the_citation_names_it() -> None:
    history = History()
    conversation, message, [_, document] = asked(history)
    of_file = citation(1)
    of_file.update({"dataset": "", "document": "", "file": document["id"]})
    history.answer(conversation, message, [of_file, citation(2)])
    rows = history.rows(dataset_retriever_resources)
    found = sorted((row["position"], row["upload_file_id"], row["document_id"]) for row in rows)
    assert found == [(1, document["id"], ""), (2, None, "the-document")]
