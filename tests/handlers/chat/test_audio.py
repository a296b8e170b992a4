"""Speech to text and text to speech: recorded calls, sealed audio, live frames, and every way in which they can end."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from adapters.privacy.packed import pack
from domain.aggregate import new_id
from domain.chat.speech import LONGEST, Speech
from domain.chat.transcription import Transcription
from domain.log import Commit
from domain.models.model_call import ModelCall
from handlers.chat.speak import PART, Speak, parts
from handlers.chat.transcribe import Transcribe
from handlers.models.choose import Choose
from handlers.ports.models import Access, ModelError
from handlers.ports.models import Transcription as Heard
from handlers.work.audit import named_blobs
from tests.handlers.chat.test_files import PNG, plain
from tests.handlers.desk import Desk
from tests.handlers.fakes import choosing
from tests.memory import Memory, MemoryLive

SOUND = b"ID3 Wumpelfisch"
SAID = "The Wumpelfisch swims at six."


class Studio:
    """An app that hears and speaks; `says` is what comes from the model, an error is raised, at an event it waits."""

    server = "studio:1"

    def __init__(self, memory: Memory, tenant: str) -> None:
        self.memory = memory
        self.desk = Desk(memory, tenant)
        self.says: list[Any] = [b"ID3 ", b"sound"]
        self.asked: list[tuple[Any, ...]] = []
        self.app = ""

    async def opened(self, autoplay: bool = True, **features: Any) -> None:
        await self.desk.done("provider.register", name="lab", base_url="http://127.0.0.1:8000/v1", check=False)
        for type in ("transcription", "speech"):
            await self.desk.done("model.set_default", type=type, provider="lab", model=f"{type}-1")
        self.app = await self.desk.done("app.create", name="Guide")
        speech = {"enabled": True, "voice": "alba", "autoplay": autoplay}
        given = {"speech_to_text": True, "text_to_speech": speech} | features
        await self.desk.done("app.configure", app=self.app, features=given)

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[Studio]]:
        if provider != "lab":
            raise ModelError("not_found", "No such provider.")
        return [Access(self)]

    async def transcribe(
        self, model: str, audio: bytes, media_type: str, *, language: str = "", prompt: str = ""
    ) -> Heard:
        self.asked.append((model, audio, media_type, language))
        for said in self.says:
            await self._say(said)
        return Heard(SAID, "english", 2.5)

    async def speak(self, model: str, text: str, *, voice: str, format: str = "mp3") -> AsyncGenerator[bytes]:
        self.asked.append((model, text, voice, format))
        for said in self.says:
            await self._say(said)
            yield said

    async def _say(self, said: Any) -> None:
        await asyncio.sleep(0)
        if isinstance(said, asyncio.Event):
            await said.wait()
        if isinstance(said, Exception):
            raise said

    @property
    def choose(self) -> Choose[Any]:
        return choosing(self.desk.repository, self)

    def hearing(self, limit_s: float = 60.0) -> Transcribe:
        live = MemoryLive(self.memory)
        return Transcribe(self.desk.repository, self.desk.calls, self.desk.files, self.choose, live, limit_s)

    def speaking(self, limit_s: float = 60.0) -> Speak:
        live = MemoryLive(self.memory)
        return Speak(self.desk.repository, self.desk.calls, self.desk.files, self.choose, live, limit_s)

    async def packed(self, data: bytes = SOUND) -> dict[str, str]:
        key, sealed = pack(data)
        return {"digest": await self.desk.blobs.put(self.desk.tenant, sealed), "key": key}

    async def recording(self, **fields: Any) -> Commit:
        id = await self.desk.send("audio.transcribe", app=self.app, user="ada", **await self.packed(), **fields)
        assert id.status == "accepted", id
        return (await self.desk.commits("transcription", id.ids["transcription"]))[0]

    async def text(self, text: str = SAID, **fields: Any) -> Commit:
        id = await self.desk.send("audio.speak", app=self.app, text=text, user="ada", **fields)
        assert id.status == "accepted", id
        return (await self.desk.commits("speech", id.ids["speech"]))[0]

    async def last(self, commit: Commit) -> Any:
        return (await self.desk.events(commit.subject.noun, commit.subject.id))[-1]

    async def call(self, id: str) -> list[Any]:
        return await self.desk.events("model_call", id)

    def calls(self) -> list[str]:
        types = [message.headers["Headrace-Types"] for message in self.memory.streams["EVENTS"].messages]
        return [type for type in types if type.startswith("model_call.")]


@pytest.fixture
async def studio(memory: Memory, tenant: str) -> Studio:
    made = Studio(memory, tenant)
    await made.opened()
    return made


# --- speech to text --------------------------------------------------------------------------------------------


async def test_a_recording_becomes_a_text_by_a_recorded_call(studio: Studio, memory: Memory) -> None:
    commit = await studio.recording(language="en")
    await studio.hearing()(commit)
    assert studio.asked == [("transcription-1", SOUND, "audio/mpeg", "en")]
    requested, last = commit.events[0], await studio.last(commit)
    assert isinstance(requested, Transcription.Requested)
    assert isinstance(last, Transcription.Completed)
    assert (last.text, last.spoken_language, last.seconds) == (SAID, "english", 2.5)
    sent, got = await studio.call(last.model_call)
    assert isinstance(sent, ModelCall.Requested)
    assert (sent.kind, sent.cause_noun, sent.cause_id) == ("transcription", "transcription", commit.subject.id)
    assert sent.request == {"file": requested.digest, "media_type": "audio/mpeg", "size": len(SOUND), "language": "en"}
    assert (got.response, got.usage["estimated"]) == (SAID, True)
    assert named_blobs(requested) == [("file", requested.digest)]
    assert memory.frames[-1] == {"type": "transcribed", "text": SAID}
    assert plain(memory, b"Wumpelfisch") == []
    await studio.hearing()(commit)  # delivered again
    assert len(studio.asked) == 1


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"key": "A" * 43 + "="}, ("invalid", "key")),
        ({"digest": "0" * 64}, ("not_found", "digest")),
        ({"language": "english"}, ("invalid", "language")),
    ],
)
async def test_a_recording_must_be_there(studio: Studio, fields: dict[str, str], fault: tuple[str, str]) -> None:
    given = {"app": studio.app, "user": "ada"} | await studio.packed() | fields
    assert await studio.desk.fails("audio.transcribe", given) == fault


async def test_what_is_no_recording_or_not_allowed_is_rejected(studio: Studio) -> None:
    fails = studio.desk.fails
    picture = await studio.packed(PNG)
    assert await fails("audio.transcribe", app=studio.app, user="ada", **picture) == ("unsupported_type", "digest")
    await studio.opened(speech_to_text=False, text_to_speech={"enabled": False})
    assert await fails("audio.transcribe", app=studio.app, **await studio.packed()) == ("not_allowed", "app")
    assert await fails("audio.speak", app=studio.app, text="Hello.") == ("not_allowed", "app")


async def test_without_a_default_model_nothing_is_transcribed_or_spoken(studio: Studio) -> None:
    for type in ("transcription", "speech"):
        await studio.desk.done("model.remove_default", type=type)
    fails = studio.desk.fails
    assert await fails("audio.transcribe", app=studio.app, **await studio.packed()) == ("not_configured", None)
    assert await fails("audio.speak", app=studio.app, text="Hello.") == ("not_configured", None)


# --- text to speech --------------------------------------------------------------------------------------------


async def test_a_text_becomes_sealed_audio_and_is_sent_while_it_arrives(studio: Studio, memory: Memory) -> None:
    commit = await studio.text()
    await studio.speaking()(commit)
    assert studio.asked == [("speech-1", SAID, "alba", "mp3")]
    last = await studio.last(commit)
    assert isinstance(last, Speech.Completed)
    person = await studio.desk.person("ada")
    assert await studio.desk.files.get(studio.desk.tenant, person, "file", last.digest) == b"ID3 sound"
    assert (last.media_type, last.size, named_blobs(last)) == ("audio/mpeg", 9, [("file", last.digest)])
    [sent, got] = await studio.call(last.model_calls[0])
    assert (sent.kind, sent.request) == ("speech", {"text": SAID, "voice": "alba", "format": "mp3"})
    assert got.response == last.digest
    assert got.first_token_ms is not None
    assert [(frame["type"], frame.get("index")) for frame in memory.frames] == [
        ("audio", 0),
        ("audio", 1),
        ("spoken", None),
    ]
    assert b"".join(b64decode(frame["audio"]) for frame in memory.frames[:-1]) == b"ID3 sound"
    assert plain(memory, b"Wumpelfisch", b"ID3 sound") == []


async def test_without_autoplay_only_the_end_is_sent(studio: Studio, memory: Memory) -> None:
    await studio.opened(autoplay=False)
    await studio.speaking()(await studio.text(voice="emil"))
    assert [frame["type"] for frame in memory.frames] == ["spoken"]
    assert studio.asked[0][2] == "emil"


async def test_the_answer_of_a_message_is_spoken_for_its_user(studio: Studio) -> None:
    outcome = await studio.desk.send("message.send", app=studio.app, query="When?", user="ada")
    named = {"conversation": outcome.ids["conversation"], "message": outcome.ids["message"], "app": studio.app}
    fails = studio.desk.fails
    assert await fails("audio.speak", **named, user="ada") == ("not_answered", "message")
    await studio.desk.answered(named["conversation"], named["message"])
    assert await fails("audio.speak", **named, user="eve") == ("wrong_user", "user")
    assert await fails("audio.speak", **named | {"message": new_id()}, user="ada") == ("not_found", "message")
    assert await fails("audio.speak", **named, text="Hello.", user="ada") == ("invalid", "text")
    assert await fails("audio.speak", app=studio.app, user="ada") == ("invalid", "text")
    id = (await studio.desk.send("audio.speak", **named, user="ada")).ids["speech"]
    [commit] = await studio.desk.commits("speech", id)
    await studio.speaking()(commit)
    assert studio.asked[0][1] == "At six."
    assert (await studio.last(commit)).TOPIC == "speech.completed.v1"


async def test_a_long_text_is_spoken_in_parts_that_are_not_paid_for_twice(studio: Studio) -> None:
    text = "It opens at six in the morning. " * 300
    commit = await studio.text(text)
    studio.says = [b"one", RuntimeError("the worker dies")]
    with pytest.raises(RuntimeError):
        await studio.speaking()(commit)
    studio.says = [b"one"]
    first = parts(text)
    assert [len(part) <= PART for part in first] == [True, True, True]
    assert " ".join(first) == text.strip()
    works = studio.speaking()
    studio.says, spoken = [b"two"], []

    async def dies_at_the_second(model: str, text: str, *, voice: str, format: str = "mp3") -> AsyncGenerator[bytes]:
        spoken.append(text)
        if len(spoken) == 2:
            raise RuntimeError("the worker dies")
        yield b"two"

    studio.speak = dies_at_the_second  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await works(commit)
    await works(commit)
    assert spoken == [first[0], first[1], first[1], first[2]]
    last = await studio.last(commit)
    assert (last.size, len(last.model_calls)) == (9, 3)
    lost = [event for event in studio.calls() if event == "model_call.failed.v2"]
    assert len(lost) == 2


async def test_a_text_that_is_too_long_is_rejected(studio: Studio) -> None:
    assert await studio.desk.fails("audio.speak", app=studio.app, text="x" * (LONGEST + 1)) == ("invalid", "text")


# --- failures and erasure --------------------------------------------------------------------------------------


async def test_an_error_of_the_server_is_an_outcome(studio: Studio, memory: Memory) -> None:
    studio.says = [ModelError("rate_limited", "Slow down.")]
    for commit, work in ((await studio.recording(), studio.hearing()), (await studio.text(), studio.speaking())):
        await work(commit)
        last = await studio.last(commit)
        assert (last.code, last.reason) == ("rate_limited", "Slow down.")
        assert memory.frames[-1] == {"type": "failed", "code": "rate_limited", "reason": "Slow down."}
    assert studio.calls() == ["model_call.requested.v3", "model_call.failed.v2"] * 2


async def test_a_silent_server_is_given_up_and_its_call_cancelled(studio: Studio) -> None:
    studio.says = [asyncio.Event()]
    for commit, work in (
        (await studio.recording(), studio.hearing(0.05)),
        (await studio.text(), studio.speaking(0.05)),
    ):
        await work(commit)
        assert (await studio.last(commit)).code == "timeout"
    assert studio.calls() == ["model_call.requested.v3", "model_call.cancelled.v2"] * 2


async def test_a_provider_that_is_gone_is_an_outcome(studio: Studio) -> None:
    for type in ("transcription", "speech"):
        await studio.desk.done("provider.register", name="other", base_url="http://127.0.0.1:8001/v1", check=False)
        await studio.desk.done("model.set_default", type=type, provider="other", model="any")
    for commit, work in ((await studio.recording(), studio.hearing()), (await studio.text(), studio.speaking())):
        await work(commit)
        assert (await studio.last(commit)).code == "not_found"
    assert studio.calls() == []


async def test_an_erased_person_is_neither_heard_nor_spoken(studio: Studio) -> None:
    heard, spoken = await studio.recording(), await studio.text()
    await studio.desk.done("end_user.erase", user="ada")
    for commit, work in ((heard, studio.hearing()), (spoken, studio.speaking())):
        await work((await studio.desk.commits(commit.subject.noun, commit.subject.id))[0])
        assert (await studio.last(commit)).code == "erased"
    assert studio.asked == []


async def test_a_passing_fault_is_tried_again_each_try_recorded(studio: Studio) -> None:
    faults = iter([ModelError("server_error", "On fire.", passing=True), b"fine"])

    async def say(said: Any) -> None:
        if isinstance(fault := next(faults), Exception):
            raise fault

    studio._say = say  # type: ignore[method-assign]
    studio.says = [b"ID3 "]
    commit = await studio.recording()
    await studio.hearing()(commit)
    calls = {
        message.subject for message in studio.memory.streams["EVENTS"].messages if ".model_call." in message.subject
    }
    types = sorted([await studio.desk.types("model_call", subject.rpartition(".")[2]) for subject in calls])
    assert types == [
        ["model_call.requested.v3", "model_call.completed.v5"],
        ["model_call.requested.v3", "model_call.failed.v2"],
    ]
    assert len(studio.asked) == 2
