"""Files of questions: how they come into the log, to the model and into citations, and how they go."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.privacy.packed import pack
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.chat.file import LIMITS, file_id
from domain.knowledge.segments import decode_segments
from domain.log import Commit, Metadata
from domain.models.model import Model, begun, model_id
from domain.models.model_call import ModelCall
from handlers.models.recorded import as_sent, read
from handlers.ports.files import NotFetched
from handlers.ports.models import Attachment, ModelError
from handlers.work.audit import named_blobs
from tests.handlers.chat.test_answer import CALL, Counter
from tests.handlers.fakes import Addresses, Ranks, message_files
from tests.memory import Memory

PNG, JPEG, WAV = b"\x89PNG\r\n\x1a\n the lock", b"\xff\xd8\xff the weir", b"RIFF\x10\0\0\0WAVEfmt "
TEXT = b"Wumpelfisch swims at six.\nThe gate is green.\nIt sleeps at dusk."
URL = "https://host/plan.txt"
ALL = {"types": ["image", "document", "audio"], "most": 3, "detail": "low"}
SERVER: dict[str, Any] = {"provider": "lab", "name": "small-8b", "max_tokens": 64, "context_window": 8192}


class Table(Counter):
    """A counter whose app takes files."""

    def __init__(self, memory: Memory, tenant: str) -> None:
        super().__init__(memory, tenant, "At six [1].")
        self.web, self.ranks = Addresses(), Ranks()
        self.files = message_files(self.desk, self.web, self.ranks)

    async def opened(self, files: dict[str, Any] | None = ALL, **configuration: Any) -> None:
        await self.desk.done("provider.register", name="lab", base_url="http://127.0.0.1:8000/v1", check=False)
        self.app = await self.desk.done("app.create", name="Guide")
        fields = {"model": SERVER, "features": {"files": files}} | configuration
        await self.desk.done("app.configure", app=self.app, **fields)

    async def measured(self, **abilities: bool) -> None:
        """Record that a check has measured abilities of the model."""
        at = datetime.now(UTC)

        def decide(known: Model | None) -> Model:
            model = begun(known, SERVER["provider"], SERVER["name"], at)
            model.take_check(at, check=new_id(), abilities=abilities)
            return model

        id = model_id(SERVER["provider"], SERVER["name"])
        await self.desk.repository.change(Model, id, Metadata(new_id(), self.desk.tenant, new_id()), decide)

    async def packed(self, data: bytes, type: str, name: str = "a.bin") -> dict[str, Any]:
        key, sealed = pack(data)
        return {"type": type, "name": name, "digest": await self.desk.blobs.put(self.desk.tenant, sealed), "key": key}

    async def fault(self, *files: dict[str, Any]) -> tuple[str | None, str | None]:
        return await self.desk.fails("message.send", app=self.app, query="What is it?", user="ada", files=list(files))

    async def answered(self, query: str, *files: dict[str, Any]) -> Commit:
        commit = await self.ask(query, files=list(files))
        await self.worker()(commit)
        assert (await self.state())["status"] == "answered", await self.last()
        return commit

    async def requested(self) -> ModelCall.Requested:
        call = str((await self.last())["model_call"])
        [event, *_] = await self.desk.events("model_call", call)
        assert isinstance(event, ModelCall.Requested)
        return event


@pytest.fixture
async def table(memory: Memory, tenant: str) -> Table:
    made = Table(memory, tenant)
    await made.opened()
    return made


def plain(memory: Memory, *marks: bytes) -> list[object]:
    """The subjects and digests of all that the log and the store of blobs hold with one of the marks in plain."""
    held: list[object] = [
        message.subject
        for stream in memory.streams.values()
        for message in stream.messages
        if any(mark in message.body for mark in marks)
    ]
    return held + [digest for (_, digest), data in memory.blobs.items() if any(mark in data for mark in marks)]


# --- into the log ----------------------------------------------------------------------------------------------


async def test_a_file_is_recorded_by_its_digest_and_sealed_for_the_person(table: Table, memory: Memory) -> None:
    commit = await table.ask("What is it?", files=[await table.packed(PNG, "image", "locks\\Wumpelfisch.jpg")])
    asked = commit.events[-1]
    assert isinstance(asked, Conversation.Asked)
    [file] = asked.files or []
    person = await table.desk.person("ada")
    assert file == {
        "id": file_id(table.message, 0),
        "type": "image",
        "transfer_method": "local_file",
        "name": "Wumpelfisch.jpg",
        "url": None,
        "digest": file["digest"],
        "media_type": "image/png",
        "size": len(PNG),
    }
    assert await table.desk.files.get(table.desk.tenant, person, "file", str(file["digest"])) == PNG
    assert named_blobs(asked) == [("file", file["digest"])]
    assert plain(memory, PNG, b"Wumpelfisch") == []


async def test_a_question_without_files_is_recorded_as_before(table: Table) -> None:
    asked = (await table.ask("What is it?", files=None)).events[-1]
    assert isinstance(asked, Conversation.Asked)
    assert asked.files is None
    assert "files" not in await table.state()


async def test_files_must_be_allowed_by_the_app(table: Table) -> None:
    image, document = await table.packed(PNG, "image"), await table.packed(TEXT, "document")
    await table.opened({"types": ["image"], "most": 2, "methods": ["local_file"]})
    assert await table.fault(image, document) == ("not_allowed", "files.1.type")
    assert await table.fault({"type": "image", "url": URL}) == ("not_allowed", "files.0.url")
    assert await table.fault(image, image, image) == ("too_many", "files")
    await table.opened({"types": ["image"], "methods": ["remote_url"]})
    assert await table.fault(image) == ("not_allowed", "files.0.digest")
    await table.opened(None)
    assert await table.fault(image) == ("not_allowed", "files")


async def test_files_must_be_what_they_are_given_as_and_small_enough(table: Table) -> None:
    image, other = await table.packed(PNG, "image"), await table.packed(TEXT, "document")
    assert await table.fault(image | {"type": "audio"}) == ("unsupported_type", "files.0.type")
    assert await table.fault(other, other | {"type": "image"}) == ("unsupported_type", "files.1.type")
    assert await table.fault(image | {"key": other["key"]}) == ("invalid", "files.0.key")
    assert await table.fault(image | {"digest": "0" * 64}) == ("not_found", "files.0.digest")
    assert await table.fault(await table.packed(bytes(LIMITS.image + 1), "image")) == ("too_large", "files.0.digest")


@pytest.mark.parametrize(
    "file",
    [
        {"type": "image"},
        {"type": "image", "url": URL, "digest": "0" * 64, "key": "A" * 43 + "="},
        {"type": "image", "digest": "0" * 64},
        {"type": "image", "url": URL, "key": "A" * 43 + "="},
        {"type": "image", "url": "file:///etc/passwd"},
        {"type": "image", "url": "https://ada:secret@host/a.png"},
        {"type": "image", "url": "https:///a.png"},
        {"type": "video", "url": URL},
    ],
)
async def test_a_file_has_one_source(table: Table, file: dict[str, Any]) -> None:
    code, field = await table.fault(file)
    assert code == "invalid"
    assert str(field).startswith("files.0")


async def test_a_long_name_is_cut_before_its_suffix(table: Table) -> None:
    asked = (await table.ask("What?", files=[await table.packed(PNG, "image", "x" * 250 + ".png")])).events[-1]
    assert isinstance(asked, Conversation.Asked)
    assert [(len(file["name"]), file["name"][-5:]) for file in asked.files or []] == [(200, "x.png")]


# --- from an address -------------------------------------------------------------------------------------------


async def test_a_file_is_fetched_once_and_recorded_before_the_model_is_called(table: Table, memory: Memory) -> None:
    table.web.files[URL] = TEXT, "text/plain"
    table.speaker.says = [RuntimeError("the worker dies")]
    commit = await table.ask("When does it swim?", files=[{"type": "document", "url": URL}])
    with pytest.raises(RuntimeError):
        await table.worker()(commit)
    table.speaker.says = ["At six [1]."]
    await table.worker()(commit)
    assert (await table.state())["status"] == "answered"
    assert table.web.asked == [(URL, LIMITS.document)]
    events = await table.desk.types("conversation", table.conversation)
    assert events[2:] == [
        "message.answering.v1",
        "message.file_fetched.v1",
        "message.file_read.v1",
        "message.answering.v1",
        "message.answered.v3",
    ]
    fetched, read = (await table.desk.events("conversation", table.conversation))[3:5]
    assert isinstance(fetched, Conversation.FileFetched)
    assert isinstance(read, Conversation.FileRead)
    assert (fetched.media_type, fetched.size, fetched.address) == ("text/plain", len(TEXT), URL + "?end")
    assert (read.count, read.pages, read.characters) == (3, None, len(TEXT) - 2)
    assert [*named_blobs(fetched), *named_blobs(read)] == [("file", fetched.digest), ("segments", read.segments)]
    assert plain(memory, b"Wumpelfisch", b"plan.txt", URL.encode()) == []


@pytest.mark.parametrize(
    ("type", "found", "code"),
    [
        ("document", NotFetched("unreachable", "The address answered with status 404."), "file_not_fetched"),
        ("document", NotFetched("timeout", "It did not arrive."), "file_not_fetched"),
        ("document", NotFetched("too_large", "It has more than 15 MiB."), "too_large"),
        ("image", (TEXT, "image/png"), "unsupported_type"),
        ("document", (b"", "text/plain"), "no_text"),
    ],
)
async def test_a_file_that_cannot_be_had_fails_the_answer_and_a_retry_fetches_it_again(
    table: Table, type: str, found: Any, code: str
) -> None:
    table.web.files[URL] = found
    await table.worker()(await table.ask("What is it?", files=[{"type": type, "url": URL}]))
    last = await table.last()
    assert (last["code"], table.calls()) == (code, [])
    assert "plan.txt" in last["reason"] or code == "unsupported_type"
    table.web.files[URL] = (TEXT if type == "document" else PNG, "")
    await table.desk.done("message.retry", conversation=table.conversation, message=table.message)
    await table.worker()(await table.cause())
    assert (await table.state())["status"] == ("answered" if code != "no_text" else "failed")


# --- images and recordings -------------------------------------------------------------------------------------


async def test_images_and_recordings_go_to_the_model_and_the_record_names_their_digests(table: Table) -> None:
    image, sound = await table.packed(PNG, "image", "lock.png"), await table.packed(WAV, "audio", "bell.wav")
    await table.answered("What is it?", image, sound)
    question = table.speaker.asked[-1].messages[-1]
    digests = [str(file["digest"]) for file in (await table.state())["files"]]
    assert list(question.attachments) == [
        Attachment("image", "image/png", PNG, "lock.png", "low", digests[0]),
        Attachment("audio", "audio/wav", WAV, "bell.wav", "", digests[1]),
    ]
    sent = (await table.requested()).request["messages"][-1]
    assert [piece.get("file") for piece in sent["pieces"]] == [None, *digests]
    [*_, message] = await read(table.desk.repository, table.desk.tenant, (await table.requested()).request["messages"])
    assert await as_sent(table.desk.files, table.desk.tenant, await table.desk.person("ada"), message) == question


async def test_the_images_of_earlier_questions_are_sent_again_while_they_fit(table: Table) -> None:
    await table.answered("What is it?", await table.packed(PNG, "image"))
    await table.answered("And this?", await table.packed(JPEG, "image"))
    messages = table.speaker.asked[-1].messages
    assert [(message.content, [file.data for file in message.attachments]) for message in messages[1:]] == [
        ("What is it?", [PNG]),
        ("At six [1].", []),
        ("And this?", [JPEG]),
    ]
    requested = (await table.requested()).request["messages"]
    written = await read(table.desk.repository, table.desk.tenant, requested)
    person = await table.desk.person("ada")
    assert [await as_sent(table.desk.files, table.desk.tenant, person, each) for each in written] == messages
    await table.desk.done(
        "app.configure", app=table.app, model=SERVER | {"context_window": 2400}, features={"files": ALL}
    )
    await table.answered("And now?")
    assert [len(message.attachments) for message in table.speaker.asked[-1].messages] == [0, 0, 0, 1, 0, 0]
    assert (await table.last())["cut"] == {"segments": 0, "messages": 0, "files": 1}


async def test_images_count_against_the_window(table: Table) -> None:
    await table.opened(model=SERVER | {"context_window": 1500})
    await table.worker()(await table.ask("What is it?", files=[await table.packed(PNG, "image")]))
    last = await table.last()
    assert (last["code"], table.calls()) == ("context_too_small", [])
    assert "with its files" in last["reason"]


async def test_a_model_that_was_measured_not_to_see_refuses_the_question(table: Table) -> None:
    await table.measured(image=False)
    image = await table.packed(PNG, "image")
    outcome = await table.desk.send("message.send", app=table.app, query="What is it?", user="ada", files=[image])
    assert (outcome.code, outcome.field) == ("unsupported", "files")
    assert "lab/small-8b does not see images" in str(outcome.message)
    await table.answered("What is it?", await table.packed(WAV, "audio"))  # unknown: it is sent
    assert [file.data for file in table.speaker.asked[-1].messages[-1].attachments] == [WAV]


async def test_images_go_to_the_model_that_a_route_chooses(table: Table) -> None:
    member = {"provider": SERVER["provider"], "name": SERVER["name"]}
    await table.desk.done("route.configure", name="fast", groups=[{"members": [member]}])
    await table.opened(model={"route": "fast", "context_window": 32768})
    await table.answered("What is it?", await table.packed(PNG, "image"))
    assert [file.data for file in table.speaker.asked[-1].messages[-1].attachments] == [PNG]


async def test_the_entry_in_the_catalogue_comes_before_the_check(table: Table) -> None:
    await table.measured(image=True)
    await table.desk.done("model.set", provider="lab", model="small-8b", abilities={"image": False})
    assert await table.fault(await table.packed(PNG, "image")) == ("unsupported", "files")
    await table.desk.done("model.set", provider="lab", model="small-8b", abilities={"image": True})
    await table.answered("What is it?", await table.packed(PNG, "image"))


async def test_what_is_measured_after_the_question_holds_for_the_answer(table: Table) -> None:
    await table.answered("What is it?", await table.packed(PNG, "image"))
    commit = await table.ask("And this?", files=[await table.packed(JPEG, "image")])
    await table.measured(image=False)
    await table.worker()(commit)
    assert (await table.last())["code"] == "unsupported"
    table.speaker.says = ["A lock."]
    await table.answered("What was it?")
    assert not any(message.attachments for message in table.speaker.asked[-1].messages)
    assert (await table.last())["cut"]["files"] == 1


async def test_the_built_in_model_takes_documents_alone(table: Table) -> None:
    await table.opened(model={})
    assert await table.fault(await table.packed(PNG, "image")) == ("unsupported", "files")
    assert await table.fault({"type": "audio", "url": URL}) == ("unsupported", "files")
    await table.answered("When does it swim?", await table.packed(TEXT, "document", "rules.txt"))


# --- documents -------------------------------------------------------------------------------------------------


async def test_a_document_is_read_quoted_and_cited(table: Table, memory: Memory) -> None:
    await table.answered("When does it swim?", await table.packed(TEXT, "document", "Wumpelfisch.txt"))
    system = table.speaker.asked[-1].messages[0].content
    assert "[1] Wumpelfisch.txt\nWumpelfisch swims at six.\n\n[2] Wumpelfisch.txt\nThe gate is green." in system
    assert table.speaker.asked[-1].passages[0] == "Wumpelfisch swims at six."
    last = await table.last()
    [cited] = last["citations"]
    [file] = (await table.state())["files"]
    assert cited == {
        "position": 1,
        "dataset": "",
        "document": "",
        "document_name": "Wumpelfisch.txt",
        "file": file["id"],
        "segment": cited["segment"],
        "segment_position": 0,
        "page": None,
        "heading": None,
        "sentence": "Wumpelfisch swims at six.",
        "content": "Wumpelfisch swims at six.",
        "score": 1.0,
    }
    [piece] = [
        piece
        for piece in (await table.requested()).request["messages"][0]["pieces"]
        if piece.get("segment") == cited["segment"]
    ]
    assert (piece["name"], piece["text"]) == ("Wumpelfisch.txt", "Wumpelfisch swims at six.")
    assert table.subjects("passage") == []  # its words stay with the person
    blob = await table.desk.files.get(
        table.desk.tenant, await table.desk.person("ada"), "segments", str(file.get("segments"))
    )
    assert [segment.content for segment in decode_segments(blob)[1]] == TEXT.decode().splitlines()
    assert plain(memory, b"Wumpelfisch") == []


async def test_a_later_question_reads_the_document_without_extracting_it_again(table: Table) -> None:
    await table.answered("When does it swim?", await table.packed(TEXT, "document"))
    before = await table.desk.types("conversation", table.conversation)
    await table.answered("What colour is the gate?")
    assert "The gate is green." in table.speaker.asked[-1].messages[0].content
    after = await table.desk.types("conversation", table.conversation)
    assert after[len(before) :] == ["message.asked.v4", "message.answering.v1", "message.answered.v3"]


async def test_of_a_document_larger_than_the_window_the_best_passages_are_given_and_the_rest_is_counted(
    table: Table,
) -> None:
    await table.opened(model=SERVER | {"context_window": 900})
    lines = [f"Rule {number} says that gate {number % 7} stays shut in winter." for number in range(400)]
    await table.answered("What does rule 271 say?", await table.packed("\n".join(lines).encode(), "document"))
    request, last = table.speaker.asked[-1], await table.last()
    assert request.passages[0] == lines[271]
    assert 1 < len(request.passages) < 40
    assert last["cut"] == {"segments": 400 - len(request.passages), "messages": 0}
    assert table.ranks.asked == ["What does rule 271 say?"]


async def test_passages_that_cannot_be_ranked_are_given_in_their_order(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> list[int]:
        raise ModelError("timeout", "It took too long.")

    monkeypatch.setattr(table.ranks, "ranked", slow)
    await table.opened(model=SERVER | {"context_window": 600})
    lines = [f"Rule {number} says that gate {number % 7} stays shut in winter." for number in range(100)]
    await table.answered("What does rule 71 say?", await table.packed("\n".join(lines).encode(), "document"))
    assert table.speaker.asked[-1].passages[:2] == lines[:2]


async def test_a_document_that_cannot_be_read_fails_the_answer_with_its_code(table: Table) -> None:
    table.web.files[URL] = b"text", "x/broken"
    await table.worker()(await table.ask("What?", files=[{"type": "document", "url": URL, "name": "plan"}]))
    last = await table.last()
    assert (last["code"], last["reason"]) == ("broken_file", "File plan cannot be read. The file is broken.")


# --- erasure ---------------------------------------------------------------------------------------------------


async def test_nothing_of_a_file_can_be_read_once_the_person_is_erased(table: Table, memory: Memory) -> None:
    await table.answered("What is it?", await table.packed(PNG, "image"), await table.packed(TEXT, "document"))
    files, person = (await table.state())["files"], await table.desk.person("ada")
    requested = (await table.requested()).request["messages"]
    await table.desk.done("end_user.erase", user="ada")
    for file in files:
        for kind, digest in (("file", file["digest"]), ("segments", file.get("segments"))):
            if digest:
                with pytest.raises(KeyError):
                    await table.desk.files.get(table.desk.tenant, person, kind, digest)  # type: ignore[arg-type]
    assert requested[-1]["pieces"][-1]["file"] == files[0]["digest"]
    [asked] = [event for event in await table.desk.events("conversation", table.conversation) if "asked" in event.TOPIC]
    assert isinstance(asked, Conversation.Asked)
    assert not asked.files


async def test_a_waiting_question_of_an_erased_person_fails_without_its_file(table: Table) -> None:
    commit = await table.ask("What is it?", files=[await table.packed(PNG, "image")])
    await table.desk.done("end_user.erase", user="ada")
    await table.worker()(commit)
    assert ((await table.last())["code"], table.calls()) == ("erased", [])


async def test_the_answer_of_a_question_with_a_file_makes_one_call(table: Table) -> None:
    await table.answered("What is it?", await table.packed(PNG, "image"))
    assert table.calls() == CALL
    assert hashlib.sha256(PNG).hexdigest() not in {digest for _, digest in table.memory.blobs}
