"""The pages other than the list and the trace, over HTTP, on a real log and real tables."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.web.viewer.pages import conversations
from adapters.web.viewer.pages.conversations import MESSAGES
from adapters.web.viewer.pages.proof import Equation, Export, Stream, Term, _doubts
from adapters.web.viewer.quota import month_begin
from domain.aggregate import new_id
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.models.model import begun
from domain.models.model_call import ModelCall
from domain.models.provider import Credential, Found, Provider
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import NOW, Site, serving, text_of

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> \u202egnp.exe\u202c \x07 '\"{{7*7}} 门有四米高"
"""Text that no page may obey."""

ANSWER = "The gate is four metres high.\n\nIt opens at high tide."


@dataclass
class Sample:
    """Objects in the log of the site."""

    site: Site
    app: App
    talk: Conversation
    first: tuple[str, str, str]
    second: tuple[str, str, str]
    evil: tuple[str, str, str]
    failed: tuple[str, str, str]
    lost: tuple[str, str, str]
    open: tuple[str, str, str]


@pytest.fixture(scope="module")
async def sample(
    lone_nats: EmbeddedNats, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sample]:
    home = tmp_path_factory.mktemp("site")
    async with serving(Path(home), lone_nats.url, module_database_url) as site:
        for name in ("openai", "local"):
            await send(site, "provider.register", name=name, base_url="http://127.0.0.1:9/v1")
        app = await site.app("Harbour <help>", "Be number 1.", "Be number 2.")
        talk = await site.conversation(app, name=f"Gates {EVIL}")
        first = await site.answer(
            app, talk, "How high is the gate?", ANSWER, segments=("a", "b", "c"), parameters={"temperature": 0.2}
        )
        second = await site.answer(
            app,
            talk,
            "How high is the gate at low tide?",
            ANSWER.replace("four", "six"),
            configuration=2,
            segments=("b", "d", "a"),
            model="gpt-4o",
            parameters={"temperature": 0.9},
            took_ms=1800.0,
        )
        evil = await site.answer(app, talk, EVIL, f"{EVIL} end", model="<b>model</b>", provider="local")
        failed = await site.answer(app, talk, "Is it open?", fails=("unavailable", f"No {EVIL} at 10.0.0.1:80"))
        await site.answer(app, talk, "Is it open now?", fails=("unavailable", f"No {EVIL} at 10.0.0.2:80"))
        lost = await site.answer(app, talk, "Anybody?", lost=True)
        still = await site.answer(app, talk, "And now?", None)
        await site.settled()
        yield Sample(site, app, talk, first, second, evil, failed, lost, still)


async def send(site: Site, command: str, /, **fields: Any) -> None:
    """Send a command, and wait for its outcome."""
    js, id = site.wiring.nc.jetstream(), new_id()
    await js.publish(f"cmd.{site.tenant}.anon.{command}", orjson.dumps(fields), headers={"Headrace-Id": id})
    outcomes = JetStreamOutcomes(site.wiring.nc)
    async with asyncio.timeout(20):
        while await outcomes.get(site.tenant, id) is None:
            await asyncio.sleep(0.01)


def harmless(page: str) -> str:
    """Nothing of what is evil is in the page as it was said; gives the page's words."""
    for said in ("<script>alert", "<img src=x", "\u202e", "\x07", "<b>model", "<help>"):
        assert said not in page
    return text_of(page)


# --- errors ------------------------------------------------------------------------------------------------------


async def test_failures_that_are_alike_are_one_row(sample: Sample) -> None:
    found = await sample.site.json("/errors", period="24h")
    [group] = [group for group in found["groups"] if group["error_code"] == "unavailable"]
    assert (group["count"], group["traces"], sum(group["counts"])) == (2, 2, 2)
    assert group["apps"] == ["Harbour <help>"]
    assert group["models"] == ["gpt-4o-mini"]
    assert found["total"]["failed"] == 2
    page = await sample.site.get("/errors", period="24h")
    assert "10.0.0.2:80" in harmless(page)
    listed = re.search(rf'href="(/traces\?error={group["fingerprint"]}[^"]*)"', page)
    assert listed
    assert "2" in text_of(await sample.site.get(listed[1].replace("&amp;", "&")))


async def test_a_call_that_was_lost_is_an_error_though_its_trace_goes_on(sample: Sample) -> None:
    found = await sample.site.json("/errors", period="24h")
    [group] = [group for group in found["groups"] if group["error_code"] == "lost"]
    assert (group["trace_id"], group["recovered"]) == (sample.lost[0], 0)


async def test_rejected_commands_are_kept_with_their_rule(sample: Sample) -> None:
    for _ in range(2):
        await send(sample.site, "app.create", name=5)
    await sample.site.settled()
    found = await sample.site.json("/errors", period="1h")
    [row] = [row for row in found["rejected"] if row["name"] == "app.create"]
    assert (row["code"], row["field"], row["count"]) == ("invalid", "name", 2)
    page = await sample.site.get("/errors", period="1h")
    link = re.search(r'href="(/sql\?[^"]*)"', page)
    assert link
    assert "2 rows" in text_of(await sample.site.get(link[1].replace("&amp;", "&")))


async def test_without_errors_it_says_so(sample: Sample) -> None:
    words = text_of(await sample.site.get("/errors", tenant="empty"))
    assert "Nothing failed" in words
    assert "every message was handled" in words


# --- costs -------------------------------------------------------------------------------------------------------


async def test_costs_are_grouped_and_unpriced_calls_are_named(sample: Sample) -> None:
    found = await sample.site.json("/costs", by="model", period="7d")
    by = {group["name"]: group for group in found["groups"]}
    assert by["openai/gpt-4o"]["cost"] == pytest.approx(1200 * 2.5e-6 + 300 * 10e-6)
    assert by["local/<b>model</b>"]["cost"] is None
    assert by["local/<b>model</b>"]["unpriced"] == 1
    assert found["total"]["cost"] == pytest.approx(sum(group["cost"] or 0 for group in found["groups"]))
    assert [row["model"] for row in found["unpriced"]] == ["<b>model</b>"]
    assert sum(sum(values.values()) for _, values in found["days"]) == pytest.approx(found["total"]["cost"])
    words = harmless(await sample.site.get("/costs", by="model", period="7d"))
    assert "1 unpriced" in words


@pytest.mark.parametrize("by", ["app", "user", "kind", "tenant"])
async def test_costs_by_whom_and_for_what_have_one_sum(sample: Sample, by: str) -> None:
    found = await sample.site.json("/costs", by=by, period="7d")
    whole = await sample.site.json("/costs", by="model", period="7d")
    assert found["total"] == {**whole["total"], "cost": pytest.approx(whole["total"]["cost"])}
    expected = {"app": sample.app.id, "user": "bo", "kind": "message", "tenant": sample.site.tenant}
    assert expected[by] in {group["name"] for group in found["groups"]}
    harmless(await sample.site.get("/costs", by=by))


async def test_costs_are_files_as_well(sample: Sample) -> None:
    written = await sample.site.client.get("/costs", params={"by": "model", "period": "7d", "format": "csv"})
    assert "attachment" in written.headers["content-disposition"]
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(written.text))}
    assert float(rows["openai/gpt-4o"]["cost"]) > 0
    assert rows["local/<b>model</b>"]["cost"] == ""
    lines = await sample.site.client.get("/costs", params={"by": "model", "period": "7d", "format": "jsonl"})
    assert {orjson.loads(line)["name"] for line in lines.text.splitlines()} == rows.keys()


async def test_quotas_are_set_changed_and_removed_by_commands(sample: Sample) -> None:
    site = sample.site
    of = {"scope": "model", "subject": "gpt-4o", "unit": "money", "period": "month", "hard": "soft"}
    quota = {"name": "mini", **of, "limit": "0.004"}
    page = await site.post("/costs/quotas", **quota)
    assert "mini" in text_of(page.text)
    if NOW - timedelta(hours=3) > month_begin(NOW):
        [found] = (await site.json("/costs"))["quotas"]
        assert found["spent"] == pytest.approx(0.006)
        assert found["state"] == "over"
        assert "150.0 %, over" in text_of(page.text)
    await site.post("/costs/quotas", **quota | {"limit": "$12"})
    [found] = (await site.json("/costs"))["quotas"]
    assert (found["most"], found["hard"], found["state"]) == (12, False, "within")
    page = await site.post("/costs/quotas", **quota | {"limit": "3", "period": "hour", "rolling": "24"})
    assert " in any 24 hours" in text_of(page.text)
    page = await site.post("/costs/quotas", **quota | {"limit": "3", "period": "day", "time_zone": "Europe/Berlin"})
    assert " a day in Europe/Berlin" in text_of(page.text)
    await site.post("/costs/quotas/mini/remove")
    assert (await site.json("/costs"))["quotas"] == []
    named = await site.wiring.nc.jetstream().get_last_msg("EVENTS", f"evt.{site.tenant}.quota.tenant")
    said = named.headers or {}
    assert (said["Headrace-Actor"], said["Headrace-Door"]) == ("anon", "viewer")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"limit": "much"}, "must be a number"),
        ({"limit": "-1"}, "limit"),
        ({"name": EVIL}, "name"),
        ({"scope": "app", "subject": EVIL}, "subject"),
        ({"period": "year"}, "period"),
        ({"rolling": "-1"}, "rolling"),
        ({"time_zone": "Nowhere"}, "time_zone"),
    ],
)
async def test_a_quota_that_breaks_a_rule_comes_back_with_it(sample: Sample, form: dict[str, str], said: str) -> None:
    known = {"name": "x", "scope": "tenant", "subject": "", "unit": "money", "period": "month", "limit": "1"}
    page = await sample.site.post("/costs/quotas", 400, **known | {"hard": "hard"} | form)
    words = harmless(page.text)
    assert said in words
    assert f'value="{(known | form)["limit"]}"' in page.text


async def test_a_quota_for_each_shows_who_has_spent_most(sample: Sample) -> None:
    each = {"subject": "", "unit": "calls", "period": "month", "limit": "1000", "hard": "soft"}
    for scope in ("app", "user", "key", "provider", "model"):
        await sample.site.post("/costs/quotas", name=f"each-{scope}", scope=scope, **each)
    found = {quota["scope"]: quota for quota in (await sample.site.json("/costs"))["quotas"]}
    if NOW - timedelta(hours=3) > month_begin(NOW):
        assert found["app"]["spent_by"] == sample.app.id
        assert found["model"]["spent"] >= found["model"]["forecast"] / 1000 > 0
    harmless(await sample.site.get("/costs"))
    for scope in found:
        await sample.site.post(f"/costs/quotas/each-{scope}/remove")


# --- proof -------------------------------------------------------------------------------------------------------


async def test_every_number_is_the_sum_of_what_it_is_made_of(sample: Sample) -> None:
    await sample.site.settled()
    found = await sample.site.json("/proof")
    calls = found["equations"]["Calls of models"]
    assert calls["holds"]
    assert {name: calls["sum_of"][name] for name in ("failed", "cancelled", "in flight", "unknown")} == {
        "failed": 2,
        "cancelled": 0,
        "in flight": 1,
        "unknown": 1,
    }
    assert calls["requested"] == sum(calls["sum_of"].values())
    assert all(equation["holds"] for equation in found["equations"].values())
    assert found["equations"]["Calls in the log"]["calls in the log"] == calls["requested"]
    assert found["oldest_call_in_flight"]["id"] == sample.open[2]
    assert (found["streams"]["EVENTS"]["missing"], found["streams"]["EVENTS"]["behind"]) == (0, 0)
    words = text_of(await sample.site.get("/proof"))
    assert "A call is in flight for longer than any should be." in words


async def test_every_number_leads_to_its_rows(sample: Sample) -> None:
    page = await sample.site.get("/proof")
    numbers = re.findall(r'<span class="term[^"]*"><a href="(/sql[^"]*)">([\d,]+)</a>', page)
    assert len(numbers) >= 6
    for link, number in numbers:
        words = text_of(await sample.site.get(link.replace("&amp;", "&")))
        count = int(number.replace(",", ""))
        assert ("found no rows" if count == 0 else f"{count} row") in words


def test_a_log_that_lost_a_message_is_found_out() -> None:
    lost = Stream("EVENTS", last=10, messages=9, reached=10, since=None)
    behind = Stream("OUTCOMES", last=10, messages=10, reached=4, since=NOW - timedelta(minutes=5))
    export = Export("collector:4318", 7, 1, NOW, 3, NOW - timedelta(minutes=5))
    wrong = Equation("Calls", "", Term("requested", 3), [Term("ended", 1), Term("in flight", 1)])
    assert _doubts([wrong], [lost], [], {}, 0, NOW, behind=False) == [
        "Calls: 3 is not 2.",
        "EVENTS has lost 1 of 10 messages.",
    ]
    found = _doubts([wrong], [behind], [export], {"created_at": NOW - timedelta(hours=1)}, 2, NOW, behind=True)
    assert [said.partition(":")[0] for said in found] == [
        "The tables are 6 messages behind OUTCOMES",
        "A call is in flight for longer than any should be.",
        "3 spans wait to be sent to collector",
        "collector",
        "2 dead letters need a decision.",
    ]
    assert _doubts([], [Stream("EVENTS", 9, 9, 9, None)], [], {}, 0, NOW, behind=False) == []


# --- conversations -----------------------------------------------------------------------------------------------


async def test_conversations_are_listed_and_found(sample: Sample) -> None:
    words = harmless(await sample.site.get("/conversations"))
    assert "Gates" in words
    assert "bo" in words
    assert (await sample.site.json("/conversations", q="no such"))["conversations"] == []
    [found] = (await sample.site.json("/conversations", user="bo", q=sample.talk.id))["conversations"]
    assert (found["app"], found["errors"], found["running"]) == ("Harbour <help>", 2, 2)
    assert "Nothing matches" in text_of(await sample.site.get("/conversations", q="no such"))
    assert "No conversations yet" in text_of(await sample.site.get("/conversations", tenant="empty"))


async def test_a_conversation_shows_its_messages_without_harm(sample: Sample) -> None:
    words = harmless(await sample.site.get(f"/conversations/{sample.talk.id}"))
    for said in ("How high is the gate?", "four metres", "{{7*7}} 门有四米高 end", "unavailable", "lost", "in flight"):
        assert said in words
    assert "U+202E" in words


async def test_time_turns_back_event_by_event(sample: Sample) -> None:
    """A page shows at an event what the tables held then."""
    path = f"/conversations/{sample.talk.id}"
    now = await sample.site.json(path)
    steps = [step for step in now["events"] if step["message"] == sample.first[1]]
    assert [step["type"] for step in steps][:3] == ["message.asked.v4", "message.answering.v1", "message.answered.v3"]
    seen = []
    for step in steps[:3]:
        then = await sample.site.json(path, at=step["sequence"])
        [message] = then["messages"]
        seen.append((message["status"], message["answer"]))
    assert seen == [("asked", ""), ("answering", ""), ("answered", ANSWER)]
    page = await sample.site.get(path, event=steps[1]["number"])
    words = harmless(page)
    assert "as it was then" in words
    assert "four metres" not in words
    assert 'type="range"' in page
    assert re.search(r'rel="prev"', page)
    assert re.search(r'rel="next"', page)


async def test_branches_of_a_conversation_are_shown(sample: Sample) -> None:
    site = sample.site
    talk = await site.conversation(sample.app, name="Branches")
    first, second = [(await site.answer(sample.app, talk, f"Question {number}?", "So."))[1] for number in (1, 2)]
    talk.regenerate(site.now, message=new_id(), repeats=first, app=sample.app)
    talk.regenerate(site.now, message=new_id(), repeats=second, app=sample.app)
    await site.record(talk, new_id())
    await site.settled()
    path = f"/conversations/{talk.id}"
    messages = (await site.json(path))["messages"]
    assert [message["branches"] for message in messages] == [True, True, False, False]
    page = await site.get(path)
    words = text_of(page)
    assert "begins another branch · asked again" in words
    assert "continues after an earlier message · asked again" in words
    assert f"#m-{first}" in page


async def test_the_last_event_is_now(sample: Sample) -> None:
    path = f"/conversations/{sample.talk.id}"
    last = len((await sample.site.json(path))["events"])
    answer = await sample.site.client.get(path, params={"event": last})
    assert str(answer.url) == f"{sample.site.url}{path}"
    assert "as it was then" not in text_of(answer.text)
    for wrong in ({"at": "x"}, {"event": "-"}):
        assert (await sample.site.client.get(path, params=wrong)).status_code == 200


async def test_a_long_conversation_has_pages_newest_first(sample: Sample) -> None:
    site = sample.site
    talk = await site.conversation(sample.app, name="Long")
    count, huge = 2 * MESSAGES + 5, "A long answer. " * 20_000
    ids = [(await site.answer(sample.app, talk, f"Question {number}?", huge))[1] for number in range(1, count + 1)]
    await site.settled()
    path, seen, message, newer = f"/conversations/{talk.id}", [], "", []
    while message is not None:
        page = await site.get(path, message=message)
        assert len(page) < 200_000
        found = await site.json(path, message=message)
        assert len(found["messages"]) <= MESSAGES
        assert found["number"] == count - len(seen)
        seen += [row["id"] for row in found["messages"]]
        newer.append(found["newer"])
        message = found["older"]
    assert seen == ids[::-1]
    assert newer == [None, "", ids[count - MESSAGES - 1]]
    words = text_of(await site.get(path))
    assert words.index(f"Question {count}?") < words.index(f"Question {count - 1}?")
    assert f"Questions {count - MESSAGES + 1} to {count} of {count}" in words
    assert "characters more: the whole text" in words
    assert len((await site.json(path, message="no such message"))["messages"]) == MESSAGES
    steps = [step for step in (await site.json(path))["events"] if step["message"] == ids[MESSAGES]]
    then = await site.json(path, at=steps[-1]["sequence"])
    assert ([row["id"] for row in then["messages"]], then["older"]) == (ids[1 : MESSAGES + 1][::-1], ids[0])
    before = await site.json(path, at=steps[-1]["sequence"], message=ids[0])
    assert ([row["id"] for row in before["messages"]], before["newer"]) == (ids[:1], "")


async def test_the_events_of_a_very_long_conversation_are_read_on_request(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "EVENTS", 1)
    path = f"/conversations/{sample.talk.id}"
    page = await sample.site.get(path)
    assert 'type="range"' not in page
    assert "Its events" in text_of(page)
    assert 'type="range"' in await sample.site.get(path, events=1)
    assert (await sample.site.json(path))["events"] == []
    assert "as it was then" in text_of(await sample.site.get(path, event=3))


async def test_a_fork_goes_on_from_an_answer(sample: Sample) -> None:
    path = f"/conversations/{sample.talk.id}"
    made = await sample.site.post(f"{path}/fork", message=sample.first[1], name="Another way")
    assert urlsplit(str(made.url)).path != path
    words = harmless(made.text)
    assert "Another way" in words
    assert "taken over" in words
    assert "four metres" in words
    assert "six metres" not in words
    assert "Fork: Another way" in text_of(await sample.site.get(path))
    refused = await sample.site.post(f"{path}/fork", 400, message=sample.failed[1])
    assert "is failed" in text_of(refused.text)


async def test_ratings_are_commands(sample: Sample) -> None:
    path = f"/conversations/{sample.talk.id}"
    page = await sample.site.post(f"{path}/rate", message=sample.evil[1], rating="dislike", content=EVIL)
    assert "disliked by anon" in harmless(page.text)
    page = await sample.site.post(f"{path}/rate", message=sample.evil[1], rating="")
    assert "disliked by" not in text_of(page.text)
    unsaid = await sample.site.post(f"{path}/rate", 400, message=sample.evil[1], content="words alone")
    assert "Say whether" in text_of(unsaid.text)
    await sample.site.post(f"{path}/rate", 400, message=sample.open[1], rating="like")


@pytest.mark.parametrize("path", ["/conversations/none", "/compare?a=none&b=none"])
async def test_what_is_not_there_is_not_found(sample: Sample, path: str) -> None:
    await sample.site.get(path, 404)


async def test_another_tenant_sees_nothing(sample: Sample) -> None:
    await sample.site.get(f"/conversations/{sample.talk.id}", 404, tenant="empty")
    await sample.site.get("/compare", 404, a=sample.first[0], b=sample.second[0], tenant="empty")
    assert "Nothing is chosen" in text_of(await sample.site.get("/replays/new", call=sample.first[2], tenant="empty"))


# --- compare -----------------------------------------------------------------------------------------------------


async def test_two_traces_differ_in_what_was_sent_and_what_came_back(sample: Sample) -> None:
    found = await sample.site.json("/compare", a=sample.first[0], b=sample.second[0])
    assert all(pair["old"]["kind"] == pair["new"]["kind"] for pair in found["spans"])
    assert [pair["old"]["kind"] for pair in found["spans"]] == ["handler", "retrieval", "chat"]
    [call] = found["calls"]
    differing = {
        setting["name"]: (setting["old"], setting["new"])
        for setting in call["settings"]
        if setting["old"] != setting["new"]
    }
    assert differing == {"model": ("gpt-4o-mini", "gpt-4o"), "configuration": ("1", "2"), "temperature": ("0.2", "0.9")}
    assert {segment["id"]: (segment["old"], segment["new"]) for segment in call["segments"]} == {
        "b": (2, 1),
        "d": (None, 2),
        "a": (1, 3),
        "c": (3, None),
    }
    page = await sample.site.get("/compare", a=sample.first[0], b=sample.second[0])
    assert "<del>four</del><ins>six</ins>" in page
    words = text_of(page)
    for said in ("moved", "came", "went", "1.80 s"):
        assert said in words


async def test_two_that_were_chosen_in_the_list_are_compared_the_older_first(sample: Sample) -> None:
    page = await sample.site.get("/traces", conversation=sample.talk.id)
    assert f'name="trace" value="{sample.first[0]}"' in page
    found = await sample.site.json("/compare", trace=[sample.second[0], sample.first[0]])
    assert (found["a"]["id"], found["b"]["id"]) == (sample.first[0], sample.second[0])


async def test_a_trace_that_failed_is_compared_as_well(sample: Sample) -> None:
    harmless(await sample.site.get("/compare", a=sample.failed[0], b=sample.evil[0]))
    harmless(await sample.site.get("/compare", a=sample.open[0], b=sample.lost[0]))
    assert "One trace" in text_of(await sample.site.get("/compare"))


# --- replay ------------------------------------------------------------------------------------------------------


async def test_calls_are_replayed_to_several_targets(sample: Sample) -> None:
    site = sample.site
    page = await site.get("/replays/new", call=sample.first[2], trace=sample.evil[0])
    words = harmless(page)
    assert "Replay 2 calls" in words
    assert "Be number 2." in words
    form = {
        "token": re.findall(r'name="token" value="([^"]+)"', page)[0],
        "call": [sample.first[2], sample.evil[2]],
        "model-1": "openai/gpt-4o",
        "configuration-1": "2",
        "model-2": "",
        "parameters-2": '{"temperature": 1}',
    }
    sent = await site.post("/replays/new", **form)
    ids = parse_qs(urlsplit(str(sent.url)).query)["id"]
    assert len(ids) == 4
    assert "4 replays under way" in text_of(sent.text)
    assert '<meta http-equiv="refresh"' in sent.text
    again = await site.post("/replays/new", **form)
    assert sorted(parse_qs(urlsplit(str(again.url)).query)["id"]) == sorted(ids)
    for replay in ids:
        await site.replayed(replay, ANSWER.replace("four metres", "about four yards"))
    await site.settled()
    found = await site.json("/replays", id=ids)
    assert found["waiting"] == 0
    assert {c["call"]["id"]: len(c["made"]) for c in found["comparisons"]} == {sample.first[2]: 2, sample.evil[2]: 2}
    replayed = {c["call"]["id"]: [made["replay"] for made in c["made"]] for c in found["comparisons"]}[sample.first[2]]
    assert {(r["model"], r["app_model_config_number"], r["parameters"]["temperature"]) for r in replayed} == {
        ("gpt-4o", 2, 0.2),
        ("gpt-4o-mini", None, 1),
    }
    done = await site.get("/replays", id=ids)
    assert "<ins>about </ins>four " in done
    assert "<del>metres</del><ins>yards</ins>" in done
    assert "http-equiv" not in done
    harmless(done)
    assert f"/compare?a={sample.first[0]}" in done
    assert "How high is the gate?" in text_of(await site.get("/replays"))


async def test_another_target_keeps_what_was_typed(sample: Sample) -> None:
    form = {"call": sample.first[2], "model-1": "openai/gpt-4o", "parameters-1": '{"a": "<x>"}', "do": "more"}
    page = (await sample.site.post("/replays/new", **form)).text
    assert 'value="openai/gpt-4o"' in page
    assert "Target 2" in text_of(page)
    assert "&lt;x&gt;" in page


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"model-1": "gpt-4o"}, "must be like provider/name"),
        ({"model-1": f"{EVIL}/x"}, "model.provider"),
        ({"max_tokens-1": "many"}, "must be a number"),
        ({"parameters-1": "[1]"}, "must be a JSON object"),
        ({"configuration-1": "99"}, "no number 99"),
        ({"call": ""}, "Choose a call"),
    ],
)
async def test_an_impossible_replay_comes_back_with_the_reason(sample: Sample, form: dict[str, str], said: str) -> None:
    page = await sample.site.post("/replays/new", 400, **{"call": sample.first[2], **form})
    assert said in harmless(page.text)


# --- SQL ---------------------------------------------------------------------------------------------------------


async def test_a_query_is_answered_on_the_page_and_as_a_file(sample: Sample) -> None:
    query = "SELECT query, answer FROM messages WHERE answer LIKE '%end' -- 100%"
    words = harmless(await sample.site.get("/sql", query=query))
    assert "1 row" in words
    assert "{{7*7}} 门有四米高 end" in words
    found = await sample.site.json("/sql", query=query)
    assert found["columns"] == ["query", "answer"]
    assert found["rows"][0][0] == EVIL
    lines = await sample.site.client.get("/sql", params={"query": query, "format": "jsonl"})
    assert orjson.loads(lines.text)["query"] == EVIL
    assert "attachment" in lines.headers["content-disposition"]
    written = await sample.site.client.get("/sql", params={"query": query, "format": "csv"})
    assert next(csv.DictReader(io.StringIO(written.text, newline="")))["query"] == EVIL


async def test_a_wrong_query_shows_the_place_of_the_fault(sample: Sample) -> None:
    page = await sample.site.get("/sql", 400, query=f"SELECT '{EVIL.replace(chr(39), '')}', nmae\nFROM apps")
    typed = re.sub(r"<textarea.*?</textarea>", "", page, flags=re.DOTALL)  # as it was typed
    assert 'Column "nmae" does not exist' in harmless(typed)
    found = await sample.site.json("/sql", 400, query="SELECT 1; RESET ROLE")
    assert found["error"] == "Only one statement at a time."
    for form in ("csv", "jsonl"):
        answer = await sample.site.client.get("/sql", params={"query": "DROP TABLE apps", "format": form})
        assert answer.status_code == 400


async def test_the_schema_and_examples_are_on_the_page(sample: Sample) -> None:
    page = await sample.site.get("/sql")
    assert "Calls of models, each recorded before it is sent." in text_of(page)
    examples = re.findall(r'<li data-row><a href="([^"]+)">', page)
    assert len(examples) >= 4
    for link in examples:
        await sample.site.get(link.replace("&amp;", "&"))


async def test_an_abandoned_download_ends_its_query(sample: Sample) -> None:
    query = "SELECT repeat('x', 100000) FROM generate_series(1, 100000)"
    async with sample.site.client.stream("GET", "/sql", params={"query": query, "format": "csv"}) as answer:
        assert answer.status_code == 200
        async for _ in answer.aiter_raw():
            break
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headrace sql' AND pid <> pg_backend_pid()"
    async with asyncio.timeout(10):
        while (await sample.site.json("/sql", query=busy))["rows"] != [["0"]]:
            await asyncio.sleep(0.05)


# --- models ----------------------------------------------------------------------------------------------------


async def checked(site: Site, name: str, check: str, *, model: str, reason: str | None = None) -> None:
    """Record a provider with a key, a check that has ended, and what it measured."""
    key = Credential(name="default", weight=3, sealed_key="sealed-secret", hint="x9Zz")
    at = site.now
    provider = Provider.begin(
        Provider.Registered, name, at, kind="ollama", base_url="http://127.0.0.1:11434", credentials=[key]
    )
    provider.request_check(at, check=check, model=model)
    found = Found(
        check=check,
        code="bad_request" if reason else None,
        reason=reason,
        model=model,
        models=12,
        latency_ms=38.5,
        limits={"requests_per_minute": 600},
    )
    provider.end_check(at, {"default": None}, **found)
    await site.record(provider, check)
    known = begun(None, name, model, at)
    known.take_listing(at, server="127.0.0.1:11434", type="chat", context_window=32_768, max_output=None)
    known.take_check(at, check=check, abilities={"tools": True, "image": False}, context_window=4096)
    await site.record(known, check)
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        at,
        kind="chat",
        provider=name,
        model=model,
        cause_noun="provider",
        cause_id=name,
        request={"messages": []},
    )
    call.fail(at, code="bad_request", reason="No.", duration_ms=12.0, response="")
    await site.record(call, check)


async def test_providers_and_models_are_shown_with_what_was_measured_and_without_secrets(sample: Sample) -> None:
    site = sample.site
    await checked(site, "harbour-lab", new_id(), model=f"small:8b {EVIL}", reason=f"It cannot {EVIL}")
    await site.settled()
    page = await site.get("/models")
    words = harmless(page)
    for said in (
        "harbour-lab",
        "ollama",
        "…x9Zz",
        "works",
        "tools",
        "no image",
        "4,096",
        "measured",
        "12 models listed",
    ):
        assert said in words, said
    assert "600 requests per minute" in words
    assert "1 call of the last check" in words
    assert "sealed-secret" not in page
    assert "openai" in words, "a provider that was never checked, or is being checked"
    listed = await site.json("/models")
    lab = next(each for each in listed["providers"] if each["id"] == "harbour-lab")
    assert [each["name"] for each in lab["credentials"]] == ["default"]
    assert lab["known"][0]["abilities"] == {"tools": True, "image": False}
    assert "sealed" not in str(lab)
    assert "No providers" in text_of(await site.get("/models", tenant="empty"))


async def test_a_check_begins_by_a_button(sample: Sample) -> None:
    site = sample.site
    await site.post("/models/openai/check", model="gpt-4o")
    await site.settled()
    listed = await site.json("/models")
    openai = next(each for each in listed["providers"] if each["id"] == "openai")
    assert openai["check_status"] == "requested"
    assert (await site.client.post("/models/gone/check")).status_code == 404
