"""Files of questions on real servers: a PDF cited by its page, and an image at an address for a model that sees."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ops.demo import EXAMPLES, is_right
from tests.adapters.egress.test_client import says, serving
from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import Row, Stack

QUESTIONS = json.loads((EXAMPLES / "questions.json").read_text())
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture of one point."""

FILES = {"files": {"types": ["image", "document"], "most": 2}}


async def files_of(headrace: Stack, message: str, also: str = "true") -> list[Row]:
    return await headrace.until(
        "SELECT f.*, u.hash, u.mime_type, u.size FROM headrace.message_files f JOIN headrace.upload_files u "
        f"USING (tenant_id, id) WHERE message_id = %(id)s AND {also}",
        id=message,
    )


async def test_a_pdf_in_a_question_is_cited_by_its_page(headrace: Stack) -> None:
    [question] = [each for each in QUESTIONS if "Lower Millbrook" in each["question"]]
    app = await headrace.make("app.create", name="reader")
    await headrace.send("app.configure", app=app, features=FILES)
    plan = EXAMPLES / "handbook" / question["document"]
    file = await headrace.client.pack_file(plan.read_bytes(), plan.name)
    assert file["type"] == "document"
    frames = await headrace.ask(app, question["question"], user="ada", files=[file])
    assert frames[-1]["type"] == "answered", frames[-1]
    assert is_right(question, frames[-1]), frames[-1]
    message = frames[0]["message"]
    [row] = await files_of(headrace, message, "f.pages IS NOT NULL")
    assert (row["name"], row["mime_type"], row["size"]) == (plan.name, "application/pdf", len(plan.read_bytes()))
    assert row["pages"] >= 2
    assert row["segments"] >= 2
    sources = await headrace.until(
        "SELECT * FROM headrace.dataset_retriever_resources WHERE message_id = %(id)s", id=message
    )
    assert {(source["upload_file_id"], source["dataset_id"]) for source in sources} == {(row["id"], "")}
    assert question["page"] in {source["page"] for source in sources}
    assert plan.read_bytes()[:100] not in await headrace.client.blobs.get(headrace.tenant, row["hash"])
    # A later question reads the same file; nothing is left of it once the user is erased.
    other = await headrace.ask(app, question["question"], user="ada", conversation=frames[0]["conversation"])
    assert is_right(question, other[-1]), other[-1]
    await headrace.send("end_user.erase", user="ada")
    await headrace.until("SELECT count(*) FROM headrace.upload_files", lambda rows: rows == [{"count": 0}])


async def test_an_image_at_an_address_is_fetched_once_and_seen_by_the_model(headrace: Stack) -> None:
    seen = list[Any]()

    async def sees(exchange: Exchange) -> None:
        seen.append(exchange.body["messages"][-1]["content"])
        await exchange.begin()
        await exchange.say("A lock in ")
        await exchange.say("the snow.", finish="stop")
        await exchange.event("[DONE]")
        await exchange.end()

    async with faulty_server(sees) as server, serving(says(PICTURE, Content_Type="text/plain")) as web:
        await headrace.send("provider.register", name="seeing", base_url=server.url, check=False)
        app = await headrace.make("app.create", name="seer")
        model = {"provider": "seeing", "name": "eyes"}
        await headrace.send("app.configure", app=app, model=model, features=FILES)
        url = f"http://127.0.0.1:{web.port}/lock"
        frames = await headrace.ask(app, "What is it?", user="eve", files=[{"type": "image", "url": url}])
        assert frames[-1].get("answer") == "A lock in the snow.", frames[-1]
        await headrace.ask(app, "And where?", user="eve", conversation=frames[0]["conversation"])
        assert len(web.heads) == 1
        await headrace.send("model.set", provider="seeing", model="eyes", abilities={"image": False})
        refused = await headrace.refused("message.send", app=app, query="And?", files=[{"type": "image", "url": url}])
    data = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    assert seen[0] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": data, "detail": "high"}},
    ]
    assert seen[1] == "And where?"
    assert (refused["code"], refused["field"]) == ("unsupported", "files")
    [row] = await files_of(headrace, frames[0]["message"])
    assert (row["transfer_method"], row["url"], row["mime_type"]) == ("remote_url", url, "image/png")


async def test_a_recording_is_transcribed_and_an_answer_is_spoken(headrace: Stack, tmp_path: Path) -> None:
    """By a server that checks the form, and sends audio in pieces; by commands, and by the command line."""
    forms, asked = list[bytes](), list[dict[str, Any]]()

    async def hears_and_speaks(exchange: Exchange) -> None:
        if exchange.target.endswith("/audio/transcriptions"):
            forms.append(exchange.raw)
            await exchange.answer(200, {"text": "When does it open?", "language": "english", "duration": 1.5})
            return
        asked.append(exchange.body)
        await exchange.begin("audio/mpeg")
        for piece in ("ID3 first", " second"):
            await exchange.send(piece)
        await exchange.end()

    async with faulty_server(hears_and_speaks) as server:
        await headrace.send("provider.register", name="studio", base_url=server.url, check=False)
        for type in ("transcription", "speech"):
            await headrace.send("model.set_default", type=type, provider="studio", model=f"{type}-1")
        app = await headrace.make("app.create", name="radio")
        speech = {"enabled": True, "voice": "alba", "autoplay": True}
        await headrace.send("app.configure", app=app, features={"speech_to_text": True, "text_to_speech": speech})
        digest, key = await headrace.client.upload_packed(b"ID3 a recording")
        heard = await headrace.make("audio.transcribe", app=app, digest=digest, key=key, language="en", user="joe")
        [row] = await headrace.until(
            "SELECT * FROM headrace.transcriptions WHERE id = %(id)s AND status <> 'requested'", id=heard
        )
        assert (row["text"], row["seconds"], row["error"]) == ("When does it open?", 1.5, None)
        live = await headrace.client.connection.subscribe(f"live.{headrace.tenant}.>")
        spoken = await headrace.make("audio.speak", app=app, text="It opens at six.", user="joe")
        frames = []
        while not frames or frames[-1]["type"] == "audio":
            frames.append(json.loads((await live.next_msg(30)).data))
        await live.unsubscribe()
        [row] = await headrace.until(
            "SELECT * FROM headrace.speeches WHERE id = %(id)s AND status <> 'requested'", id=spoken
        )
        recording, audio = tmp_path / "question.mp3", tmp_path / "answer.mp3"
        recording.write_bytes(b"ID3 another recording")
        code, [printed] = await headrace.command("transcribe", app, str(recording), "--user", "ann")
        assert (code, printed["text"]) == (0, "When does it open?")
        code, [printed] = await headrace.command("speak", app, "At six.", "--user", "ann", "--out", str(audio))
        assert (code, printed["file"], audio.read_bytes()) == (0, str(audio), b"ID3 first second")
    assert b"ID3 another recording" in forms.pop()
    assert asked.pop()["input"] == "At six."
    assert b"ID3 a recording" in forms[0]
    assert b'name="model"\r\n\r\ntranscription-1\r\n' in forms[0]
    assert asked == [{"model": "speech-1", "input": "It opens at six.", "voice": "alba", "response_format": "mp3"}]
    assert b"".join(base64.b64decode(frame["audio"]) for frame in frames[:-1]) == b"ID3 first second"
    assert frames[-1] == {"type": "spoken", "digest": row["hash"], "media_type": "audio/mpeg", "size": 16}
    assert (row["status"], row["size"]) == ("completed", 16)
    kinds = await headrace.until(
        "SELECT kind, status FROM headrace.model_calls WHERE cause_id = ANY(%(ids)s) ORDER BY kind",
        lambda rows: len(rows) == 2,
        ids=[heard, spoken],
    )
    assert [(call["kind"], call["status"]) for call in kinds] == [
        ("speech", "completed"),
        ("transcription", "completed"),
    ]
    [trace] = await headrace.until(
        "SELECT kind, name, status FROM headrace.traces WHERE id = %(id)s AND status = 'ok'", id=spoken
    )
    assert (trace["kind"], trace["name"]) == ("audio", "audio.speak")
