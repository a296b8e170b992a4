"""Files of questions on the page of a trace, and their bytes; and calls of models of audio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from domain.aggregate import new_id
from domain.chat.file import File, file_id
from domain.models.model_call import ModelCall
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import Site, serving, text_of

PNG = b"\x89PNG\r\n\x1a\n a picture"
PAGE = b"<script>alert(1)</script>"
NAME = 'plan "x"; a\u00df.html'


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("files"), lone_nats.url, module_database_url) as served:
        yield served


class Asked(NamedTuple):
    trace: str
    span: str
    files: list[File]


async def asked(site: Site, user: str) -> Asked:
    """A question with an image and a page of the web, and a call that was sent the image; their person is erased with
    the user."""
    app = await site.app("Gatehouse", "Be brief.")
    talk = await site.conversation(app, user)
    person = await site.wiring.keys.person(site.tenant, user)
    trace = message = new_id()
    files = []
    for number, (type, name, media_type, data) in enumerate(
        [("image", "lock.png", "image/png", PNG), ("document", NAME, "text/html", PAGE)]
    ):
        stored: Any = {
            "digest": await site.wiring.files.put(site.tenant, person, "file", data),
            "media_type": media_type,
            "size": len(data),
        }
        files.append(
            File(id=file_id(message, number), type=type, transfer_method="local_file", name=name, url=None, **stored)
        )
    talk.ask(
        site.now, message=message, app=app.id, configuration=1, query="What is it?", inputs={}, user=user, files=files
    )
    await site.record(talk, trace, person=person)
    piece = {"file": files[0]["digest"], "kind": "image", "media_type": "image/png", "name": "lock.png"}
    gone = {**piece, "file": "0" * 64, "name": "older.png"}
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        site.now,
        kind="chat",
        provider="openai",
        model="eyes",
        cause_noun="message",
        cause_id=message,
        attempt=1,
        request={"messages": [{"role": "user", "pieces": [{"text": "What is it?"}, piece, gone]}], "max_tokens": 9},
    )
    await site.record(call, trace, person=person)
    await site.settled()
    return Asked(trace, call.id, files)


async def test_the_page_of_a_trace_shows_the_files_of_its_question(site: Site) -> None:
    trace, call, [image, page] = await asked(site, "bo")
    shown = await site.get(f"/traces/{trace}", span="-")
    assert f'<img src="/traces/{trace}/files/{image["id"]}" alt="lock.png"' in shown
    assert shown.count('<img src="/traces') == 1
    assert f'<a href="/traces/{trace}/files/{page["id"]}">' in shown
    assert f"image/png, {len(PNG)} bytes" in text_of(shown)
    sent = await site.get(f"/traces/{trace}", span=call)
    assert f'<img src="/traces/{trace}/files/{image["id"]}"' in sent
    assert "older.png image/png, gone" in text_of(sent)
    assert "curl" not in text_of(sent)


async def test_an_image_is_shown_and_any_other_file_is_saved(site: Site) -> None:
    trace, _, [image, page] = await asked(site, "cy")
    answer = await site.client.get(f"/traces/{trace}/files/{image['id']}")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PNG, "image/png")
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''lock.png"
    answer = await site.client.get(f"/traces/{trace}/files/{page['id']}")
    assert (answer.content, answer.headers["content-type"]) == (PAGE, "application/octet-stream")
    named = "attachment; filename*=UTF-8''plan%20%22x%22%3B%20a%C3%9F.html"
    assert answer.headers["content-disposition"] == named
    for name, value in (("x-content-type-options", "nosniff"), ("cache-control", "private, no-store")):
        assert answer.headers[name] == value
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_file_is_read_only_by_who_may_read_its_trace(site: Site) -> None:
    trace, _, [image, _] = await asked(site, "di")
    path = f"/traces/{trace}/files/{image['id']}"
    answer = await site.browser().get(path)
    assert (answer.status_code, PNG in answer.content) == (303, False)  # to the login
    other = await site.client.get(path, params={"tenant": "another"})
    assert (other.status_code, PNG in other.content) == (404, False)
    assert (await site.client.get(f"/traces/{new_id()}/files/{image['id']}")).status_code == 404


async def test_a_file_of_an_erased_person_is_gone(site: Site) -> None:
    trace, _, [image, _] = await asked(site, "ed")
    outcome = await site.command("end_user.erase", {"user": "ed"}, site.tenant)
    assert outcome["ids"]
    await site.settled()
    assert (await site.client.get(f"/traces/{trace}/files/{image['id']}")).status_code == 404
    assert '<img src="/traces' not in await site.get(f"/traces/{trace}", span="-")


@pytest.mark.parametrize(
    ("kind", "request_", "response"),
    [
        (
            "transcription",
            {"file": "d" * 64, "media_type": "audio/wav", "size": 900, "language": ""},
            "It opens <at> six.",
        ),
        ("speech", {"text": "It opens <at> six.", "voice": "alba", "format": "mp3"}, "e" * 64),
    ],
)
async def test_a_call_of_a_model_of_audio_shows_its_text(
    site: Site, kind: str, request_: dict[str, Any], response: str
) -> None:
    call, trace = new_id(), new_id()
    known: Any = {"provider": "lab", "model": "sounds", "cause_noun": kind, "cause_id": trace}
    made = ModelCall.begin(ModelCall.Requested, call, site.now, kind=kind, request=request_, **known)
    await site.record(made, trace)
    usage: Any = {"prompt_tokens": 3, "completion_tokens": 0, "estimated": True, "raw": {}}
    usage |= dict.fromkeys(("cached_tokens", "cache_write_tokens", "reasoning_tokens"))
    made.complete(site.now, response=response, finish_reason=None, usage=usage, first_token_ms=None, duration_ms=40.0)
    await site.record(made, trace)
    await site.settled()
    page = await site.get(f"/traces/{trace}", span=call)
    assert "It opens &lt;at&gt; six." in page
    assert kind.capitalize() in text_of(page)
    assert "that were embedded" not in page
