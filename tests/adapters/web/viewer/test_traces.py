"""The list of traces and the page of one, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import psycopg
import pytest

from adapters.web.viewer.pages.traces import BARS
from domain.chat.app import App
from domain.chat.conversation import Conversation
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import Site, serving, text_of

HOSTILE = (
    "</textarea><script>alert(1)</script><img src=x onerror=alert(1)> {{7*7}} {% raw %} ${x} \" onload='x' "
    "\x1b[31mred\x07 \u202egnp.exe \u2066iso \U000e0041\U000e0042 &lt;b&gt; مرحبا 日本語 👩\u200d🔧"
)


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("traces"), lone_nats.url, module_database_url) as served:
        yield served


@pytest.fixture(scope="module")
async def app(site: Site) -> App:
    return await site.app("Gatehouse", "Be brief.")


async def talk(site: Site, app: App, user: str = "bo") -> Conversation:
    return await site.conversation(app, user)


async def ids(site: Site, **query: Any) -> list[str]:
    return [row["id"] for row in (await site.json("/traces", **query))["traces"]]


async def test_every_filter_finds_what_it_should(site: Site, app: App) -> None:
    cheap, _, _ = await site.answer(app, await talk(site, app, "ana"), "How high is the weir?", took_ms=300.0)
    dear, _, _ = await site.answer(
        app,
        await talk(site, app, "cy"),
        "Wie breit ist das Wehr?",
        model="gpt-4o",
        tokens=(40_000, 4000),
        took_ms=9000.0,
    )
    broken, _, _ = await site.answer(app, await talk(site, app), "请问水闸多高？", fails=("rate_limited", "Slow down."))
    lost, _, _ = await site.answer(app, await talk(site, app), "ما ارتفاع البوابة؟", lost=True)
    open, message, _ = await site.answer(app, await talk(site, app), "Still there?", None)
    await site.settled()
    found = await ids(site)
    assert [id for id in found if id in {cheap, dear, broken, lost, open}] == [open, lost, broken, dear, cheap]
    expected = {
        ("state", "error"): broken,
        ("error", "rate_limited"): broken,
        ("user", "ana"): cheap,
        ("model", "gpt-4o"): dear,
        ("cost", "0.05"): dear,
        ("q", "weirs high"): cheap,
        ("q", "breit Wehr"): dear,
        ("q", "水闸"): broken,
        ("q", "البوابة"): lost,
        ("q", message): open,
        ("from", "2999-01-01"): None,
        ("app", "00000000-0000-0000-0000-000000000000"): None,
    }
    for (name, value), trace in expected.items():
        assert await ids(site, **{name: value}) == ([trace] if trace else []), (name, value)
    assert cheap in await ids(site, latency="500ms")
    assert await ids(site, latency="1000000 m") == []
    assert set(await ids(site, app=app.id, kind="message", range="24h")) >= {cheap, dear, broken, lost, open}
    assert set(await ids(site, state="running")) >= {open}
    strip = (await site.json("/traces", app=app.id))["strip"]
    assert strip["total"]["traces"] == sum(part["traces"] for part in strip["parts"]) >= 5
    assert strip["total"]["errors"] >= 1
    page = text_of(await site.get("/traces", strip="wait"))
    assert "How high is the weir?" in page
    assert "rate_limited: Slow down." in page
    assert "unknown outcome" in page
    assert "1 call in flight" in page


async def test_the_charts_fit_the_time_of_the_traces(site: Site) -> None:
    """A young system fills its charts; a time that was asked for is shown as a whole."""
    app = await site.app("Young", "Be brief.")
    talk = await site.conversation(app)
    for number in range(10):
        await site.answer(app, talk, f"Young {number}?")
    await site.settled()
    rows = (await site.json("/traces", app=app.id))["traces"]
    strip = (await site.json("/traces", app=app.id))["strip"]
    first, last = (datetime.fromisoformat(strip[name]) for name in ("since", "until"))
    step = (last - first) / len(strip["parts"])
    assert len(strip["parts"]) <= BARS + 1
    assert first <= datetime.fromisoformat(rows[-1]["started_at"]) < first + step
    assert datetime.fromisoformat(rows[0]["started_at"]) < last <= first + timedelta(minutes=1) + 2 * step
    assert strip["parts"][0]["traces"]
    asked = (await site.json("/traces", app=app.id, range="24h"))["strip"]
    assert timedelta(hours=24) <= datetime.fromisoformat(asked["until"]) - datetime.fromisoformat(asked["since"])
    page = text_of(await site.get("/traces", app=app.id, strip="wait"))
    assert "a bar is" in page
    assert "Nothing failed in this time." in page
    nothing = (await site.json("/traces", app="no such app"))["strip"]
    assert nothing["total"]["traces"] == 0


async def test_what_a_filter_cannot_mean_is_said(site: Site) -> None:
    odd: dict[str, Any] = {"from": "yesterday"}
    page = text_of(await site.get("/traces", latency="soon", cost="much", q="the", **odd))
    for hint in ("like 500ms, 2s or 1m", "like 0.01", "like 2026-01-31T03:00", "has only words that are everywhere"):
        assert hint in page


async def test_nothing_found_says_what_to_do(site: Site) -> None:
    assert "Nothing matches" in text_of(await site.get("/traces", user="unknown user"))


async def test_pages_have_all_rows_once_in_both_directions(site: Site) -> None:
    app = await site.app("Many", "Be brief.")
    for number in range(120):
        await site.answer(app, await talk(site, app), f"Question {number}?", None)
    await site.settled()
    answer = await site.json("/traces", app=app.id)
    seen, pages = [row["id"] for row in answer["traces"]], 1
    while answer["older"]:
        answer = await site.json("/traces", app=app.id, before=answer["older"])
        seen, pages = seen + [row["id"] for row in answer["traces"]], pages + 1
    assert (len(seen), len(set(seen)), pages) == (120, 120, 3)
    back = [row["id"] for row in answer["traces"]]
    while answer["newer"]:
        answer = await site.json("/traces", app=app.id, after=answer["newer"])
        back = [row["id"] for row in answer["traces"]] + back
    assert back == seen
    assert "Older →" in text_of(await site.get("/traces", app=app.id))
    assert len((await site.get("/traces", app=app.id)).encode()) < 100_000


async def test_rows_are_sent_again_only_when_something_changed(site: Site, app: App) -> None:
    await site.settled()
    page = await site.get("/traces")
    poll = page.partition('hx-get="/traces?part=rows')[2].partition('"')[0].replace("&amp;", "&")
    again = await site.client.get(f"/traces?part=rows{poll}", headers={"HX-Request": "true"})
    assert again.status_code == 204
    await site.answer(app, await talk(site, app), "Something new?")
    await site.settled()
    again = await site.client.get(f"/traces?part=rows{poll}", headers={"HX-Request": "true"})
    assert again.status_code == 200
    assert "Something new?" in again.text
    assert "<html" not in again.text


async def test_a_trace_shows_what_the_model_saw_and_where_it_came_from(site: Site, app: App) -> None:
    segments = ("The gate is four metres high.", "It was built in 1912.")
    trace, _, _ = await site.answer(
        app, await talk(site, app), "How high is the gate?", "Four metres [1].", segments=segments, tokens=(1000, 100)
    )
    await site.settled()
    page = await site.get(f"/traces/{trace}")
    assert '<mark class="s0" id="source-0" title="instructions, configuration 1">Be number 1.</mark>' in page
    assert ">The gate is four metres high.</mark>" in page
    words = text_of(page)
    assert "rank 1" in words
    assert "Four metres [1]." in words
    assert "message.asked.v4" in words or "conversation.asked" in words
    assert "1,000 → 100" in words
    # gpt-4o-mini: 0.15 and 0.60 dollars a million tokens.
    assert "Prompt 1,000 × $0.15 a million $0.00015" in words
    assert "Answer 100 × $0.6 a million $0.00006" in words
    spans = (await site.json(f"/traces/{trace}"))["spans"]
    search = next(span["id"] for span in spans if span["kind"] == "retrieval")
    words = text_of(await site.get(f"/traces/{trace}", span=search))
    assert "Retrieval hybrid, the best 4" in words
    assert "given to the model" in words
    whole = text_of(await site.get(f"/traces/{trace}", span="-"))
    assert "Question and answer" in whole
    part = await site.get(f"/traces/{trace}", span=search, part="panel")
    assert "<html" not in part


async def test_a_rerank_shows_its_segments_by_their_scores(site: Site, app: App) -> None:
    trace, message, _ = await site.answer(app, await talk(site, app), "How high is the weir?")
    call = await site.reranked(trace, message, {"segment-1": 0.25, "segment-2": 0.75})
    await site.settled()
    words = text_of(await site.get(f"/traces/{trace}", span=call))
    assert "Reranked 2 segments" in words
    assert "0.750 a document that is gone The segment is gone. 2 0.250" in words
    assert "rerank lexical-2" in words
    assert "Replay" not in words


async def test_other_ids_lead_to_their_trace(site: Site, app: App) -> None:
    trace, message, call = await site.answer(app, await talk(site, app), "Which way?")
    await site.settled()
    for id in (message, call):
        answer = await site.client.get(f"/traces/{id}", headers={"Accept": "text/html"})
        assert answer.status_code == 200
        assert answer.url.path == f"/traces/{trace}"
    assert "There is no trace" in text_of(await site.get("/traces/nowhere", 404))


async def test_a_lost_call_and_one_in_flight_are_obvious(site: Site, app: App) -> None:
    lost, _, _ = await site.answer(app, await talk(site, app), "Lost?", lost=True)
    open, _, _ = await site.answer(app, await talk(site, app), "Open?", None)
    await site.settled()
    assert "1 call with an unknown outcome." in text_of(await site.get(f"/traces/{lost}"))
    page = await site.get(f"/traces/{open}")
    assert "1 call in flight." in text_of(page)
    assert 'hx-trigger="every 2s' in page


async def test_a_rating_is_a_command(site: Site, app: App) -> None:
    conversation = await talk(site, app)
    trace, message, _ = await site.answer(app, conversation, "Good?")
    await site.settled()
    answer = await site.post(f"/traces/{trace}/rating", rating="dislike", content="Too short.")
    assert "Too short." in text_of(answer.text)
    async with await psycopg.AsyncConnection.connect(site.wiring.settings.postgres_url) as connection:
        rows = await connection.execute(
            "SELECT rating, content, created_by FROM headrace.message_feedbacks WHERE message_id = %s", (message,)
        )
        assert await rows.fetchall() == [("dislike", "Too short.", "anon")]
    assert "A rating is like" in text_of((await site.post(f"/traces/{trace}/rating", 400, rating="maybe")).text)


async def test_hostile_content_is_shown_and_does_nothing(site: Site) -> None:
    app = await site.app(HOSTILE[:100].replace("\x1b", ""), "Be brief.")
    conversation = await site.conversation(app, "<u>user</u> \u202e", HOSTILE[:120].replace("\x1b", ""))
    trace, _, call = await site.answer(app, conversation, HOSTILE, HOSTILE, segments=(HOSTILE,))
    broken, _, _ = await site.answer(app, conversation, HOSTILE, fails=("bad_request", HOSTILE))
    await site.settled()
    for path in ("/traces", f"/traces/{trace}", f"/traces/{broken}", f"/traces/{trace}?span=-"):
        page = await site.get(path)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "\U000e0041" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "{{7*7}}" in page
        assert 'title="right-to-left override">U+202E</span>' in page
    text = await site.client.get(f"/traces/{trace}/calls/{call}/answer")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text == HOSTILE
    odd = await site.get("/traces", q=HOSTILE, user=HOSTILE, model='"><script>alert(1)</script>')
    assert "<script>alert" not in odd
    await site.get("/traces", before="x~y", range="<b>", tenant="<script>alert(1)</script>")
    await site.get(f"/traces/{trace}", span="%00'\"<script>", unfold="a:999999999999999")


async def test_a_huge_answer_stays_usable(site: Site, app: App) -> None:
    huge = "A long answer. " * 30_000
    trace, _, call = await site.answer(app, await talk(site, app), "Tell me everything.", huge)
    await site.settled()
    began = perf_counter()
    page = await site.get(f"/traces/{trace}")
    assert perf_counter() - began < 5
    assert len(page) < 150_000
    assert "characters more: the whole text" in text_of(page)
    assert (await site.client.get(f"/traces/{trace}/calls/{call}/answer")).text == huge


async def test_reasoning_is_shown_apart_from_the_answer(site: Site, app: App) -> None:
    trace, _, call = await site.answer(app, await talk(site, app), "When?", "At six.")
    await site.settled()
    page = await site.get(f"/traces/{trace}", span=call)
    assert "<i>Let me see.</i>" not in page
    shown = text_of(page)
    assert shown.index("no part of the answer") < shown.index("Let me see.") < shown.index("At six.")
    assert (await site.client.get(f"/traces/{trace}/calls/{call}/reasoning")).text == "<i>Let me see.</i>"
    assert (await site.client.get(f"/traces/{trace}/calls/{call}/answer")).text == "At six."


async def test_files_and_calls_of_tools_are_shown(site: Site, app: App) -> None:
    picture = {"file": "ab" * 32, "kind": "image", "media_type": "image/png", "name": "<gate>.png"}
    call = {"id": "call_1", "name": "tide", "arguments": '{"lock": "<Mill>"}'}
    earlier = [
        {"role": "user", "pieces": [{"text": "Look."}, picture]},
        {"role": "assistant", "pieces": [], "tool_calls": [call]},
        {"role": "tool", "pieces": [{"text": "High."}], "tool_call_id": "call_1"},
    ]
    asks = [{**call, "id": "call_2", "arguments": '{"lock": "Sea"}'}]
    trace, _, id = await site.answer(
        app, await talk(site, app), "When?", "Let me see.", earlier=earlier, tool_calls=asks
    )
    await site.settled()
    page = await site.get(f"/traces/{trace}", span=id)
    assert "<gate>" not in page
    assert "<Mill>" not in page
    shown = text_of(page)
    assert "<gate>.png image/png, gone" in shown
    assert 'tide ( {"lock": "<Mill>"} ) call_1' in shown
    assert "result of the call call_1" in shown
    assert 'tide ( {"lock": "Sea"} ) call_2' in shown
    assert "The server sent state" in shown


async def test_another_tenant_sees_none_of_it(site: Site, app: App) -> None:
    trace, _, call = await site.answer(app, await talk(site, app), "Whose is it?")
    await site.settled()
    sequence = (await site.json(f"/traces/{trace}"))["trace"]["sequence"]
    assert await ids(site, tenant="acme") == []
    await site.get(f"/traces/{trace}", 404, tenant="acme")
    await site.get(f"/traces/{trace}/calls/{call}/answer", 404, tenant="acme")
    await site.get(f"/log/{sequence}", 404, tenant="acme")
    own = await site.client.get(f"/log/{sequence}")
    assert own.json()["subject"].startswith("evt.default.conversation.")
