from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.access.sql_login import SqlLogin
from domain.access.tenant import HOUSE
from domain.aggregate import Rejection, new_id, uuid7
from domain.chat.conversation import COPIED, Conversation
from domain.knowledge.document import Document, segment_id
from domain.knowledge.segments import Segment, encode_segments
from domain.log import OUTCOMES, Metadata, Outcome
from domain.models.provider import Provider
from domain.work.quarantine import quarantine_id
from domain.workflows.run import Form
from handlers.commands.fields import MAX_PAYLOAD
from handlers.dispatch import EXCERPT, Delivery
from handlers.ports.log import Unavailable
from handlers.repository import SNAPSHOT_EVERY
from handlers.routes import ROUTES
from tests.handlers.desk import EMBEDDING_MODELS, VERIFIER, Desk, ForgetfulOutcomes
from tests.handlers.test_routes import CHART, PACKED, PASSWORD
from tests.memory import Memory
from tests.packages import digest, package

KEY = "sk-live-4fJ2kQ9vXw7Zr1Ts"
AUDIO = {"speech_to_text": True, "text_to_speech": {"enabled": True}}

INSTALLED = package()


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


# --- what is rejected ----------------------------------------------------------------------------------------


async def test_a_rejected_unknown_command_names_the_known_ones(desk: Desk) -> None:
    outcome = await desk.send("app.paint", name="x")
    assert (outcome.status, outcome.code, outcome.field) == ("rejected", "unknown_command", None)
    assert all(name in str(outcome.message) for name in ROUTES if name.startswith("app."))
    outcome = await desk.send("painting.make", name="x")
    assert all(name.partition(".")[0] in str(outcome.message) for name in ROUTES)


@pytest.mark.parametrize("name", ["", "app", "app.create.now", "App.create", "app.create ", "app\n.create", "x" * 4000])
async def test_a_name_must_be_right_to_the_letter(desk: Desk, name: str) -> None:
    assert await desk.fails(name, {"name": "x"}) == ("unknown_command", None)


@pytest.mark.parametrize(
    ("payload", "code", "field"),
    [
        (b"", "broken_json", None),
        (b"{", "broken_json", None),
        (b"\xff\x00", "broken_json", None),
        (b"[1]", "broken_json", None),
        (b"{" * 500_000, "broken_json", None),
        (b'{"name": "' + b"x" * 2 * MAX_PAYLOAD + b'"}', "too_large", None),
        (b'{"name": "a\\u0000b"}', "invalid", "name"),
        (b'{"name": "x", "na\\u0000me": 1}', "invalid", "na�me"),
        (b'{"name": 7}', "invalid", "name"),
        (b'{"name": "\\t"}', "invalid", "name"),
        (b"{}", "invalid", "name"),
        (b'{"name": "x", "colour": "red"}', "invalid", "colour"),
        (b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}", "invalid", "name"),
    ],
)
async def test_bad_input_is_rejected_and_kept(desk: Desk, payload: bytes, code: str, field: str | None) -> None:
    outcome = await desk.send("app.create", payload)
    assert (outcome.status, outcome.code, outcome.field) == ("rejected", code, field)
    assert outcome.excerpt is not None
    assert outcome.excerpt == payload.decode(errors="replace")[:EXCERPT].replace("\0", "�")
    assert await desk.outcomes.get(desk.tenant, outcome.command) == outcome
    assert await desk.commits("app", outcome.command) == []


async def test_what_would_be_too_large_to_write_is_rejected(desk: Desk) -> None:
    """Two answers that a commit has room for, each, and none that has room for a copy of both."""
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    talk = await desk.done("message.send", app=app, query="Why?")
    again = await desk.send("message.send", app=app, query="Why?", conversation=talk)
    for message in (talk, again.command):
        answer = partial(Conversation.stopped, at=datetime.now(UTC), message=message, answer="\x01" * (COPIED // 2 - 4))
        await desk.change("conversation", talk, answer)
    assert await desk.fails("conversation.fork", conversation=talk, message=again.command) == ("too_large", None)
    assert await desk.done("conversation.fork", conversation=talk, message=talk)


async def test_an_outcome_is_never_larger_than_what_it_tells(desk: Desk) -> None:
    outcome = await desk.send("app.create", {"x" * 1_000_000: 1})
    assert outcome.status == "rejected"
    assert len(orjson.dumps([outcome.message, outcome.field, outcome.excerpt])) < 4 * EXCERPT


async def test_a_fault_of_the_delivery_is_its_rejection(desk: Desk) -> None:
    id = new_id()
    fault = Rejection("invalid", "Must be a UUID.", "Headrace-Id")
    delivery = Delivery("app.create", b'{"name": "x"}', Metadata(id, desk.tenant, id), datetime.now(UTC), fault)
    outcome = await desk.dispatch(delivery)
    assert (outcome.status, outcome.code, outcome.field) == ("rejected", "invalid", "Headrace-Id")
    assert await desk.commits("app", id) == []


# --- the same command again ----------------------------------------------------------------------------------


async def test_a_rejected_command_stays_rejected(desk: Desk) -> None:
    """Also when it would be right by now."""
    dataset, id = new_id(), new_id()
    upload = {"dataset": dataset, "name": "a.txt", "text": "x"}
    first = await desk.send("document.upload", upload, id=id)
    assert first.code == "not_found"
    await desk.send("dataset.create", {"name": "Rules"}, id=dataset)
    assert await desk.send("document.upload", upload, id=id) == first
    assert await desk.commits("document", id) == []
    assert (await desk.send("document.upload", upload)).status == "accepted"


async def test_a_command_that_is_sent_twice_at_once_is_decided_once(desk: Desk) -> None:
    """Else one could be rejected, and the other accepted by what has changed in between."""
    dataset, id = new_id(), new_id()
    upload = {"dataset": dataset, "name": "a.txt", "text": "x"}
    first, _, second, third = await asyncio.gather(
        desk.send("document.upload", upload, id=id),
        desk.send("dataset.create", {"name": "Rules"}, id=dataset),
        desk.send("document.upload", upload, id=id),
        desk.send("document.upload", upload, id=id),
    )
    assert first == second == third == await desk.outcomes.get(desk.tenant, id)
    assert len(await desk.commits("document", id)) == (first.status == "accepted")


async def test_an_id_is_one_command_for_ever(desk: Desk) -> None:
    id = new_id()
    first = await desk.send("app.create", {"name": "One"}, id=id)
    assert await desk.send("app.create", {"name": "Other"}, id=id) == first
    assert await desk.send("dataset.create", {"name": "Other"}, id=id) == first
    assert await desk.commits("dataset", id) == []
    assert len(await desk.commits("app", id)) == 1


async def test_the_same_id_of_another_tenant_is_another_command(desk: Desk) -> None:
    id, other = new_id(), Desk(desk.server, f"{desk.tenant}x")
    ours = await desk.send("app.create", {"name": "Ours"}, id=id)
    theirs = await other.send("app.create", {"name": "Theirs"}, id=id)
    assert (ours.status, theirs.status) == ("accepted", "accepted")
    assert ours.position != theirs.position
    assert [event.name for event in await other.events("app", id)] == ["Theirs"]  # type: ignore[attr-defined]
    assert await other.outcomes.get(other.tenant, id) == theirs


async def test_copies_at_once_are_one_command(desk: Desk) -> None:
    id = new_id()
    desks = [Desk(desk.server, desk.tenant) for _ in range(20)]
    results = await asyncio.gather(*(each.send("app.create", {"name": "One"}, id=id) for each in desks))
    assert len({(outcome.status, outcome.position, outcome.version) for outcome in results}) == 1
    assert await desk.types("app", id) == ["app.created.v2"]


async def dies(desk: Desk, name: str, fields: dict[str, Any], id: str) -> None:
    """A process commits what the command does, and dies before it can say so."""
    doomed = Desk(desk.server, desk.tenant, outcomes=ForgetfulOutcomes(desk.outcomes))
    with pytest.raises(ForgetfulOutcomes.Died):
        await doomed.send(name, fields, id=id)
    assert await desk.outcomes.get(desk.tenant, id) is None


@pytest.mark.parametrize("others", [0, 3, SNAPSHOT_EVERY + 10])
async def test_a_lost_outcome_is_found_in_the_log(desk: Desk, others: int) -> None:
    """However many changes followed."""
    app = await desk.done("app.create", name="Guide")
    id = new_id()
    await dies(desk, "app.configure", {"app": app, "prompt": "lost"}, id)
    commits = await desk.commits("app", app)
    for number in range(others):
        await desk.done("app.configure", app=app, prompt=f"{number}")
    outcome = await desk.send("app.configure", {"app": app, "prompt": "lost"}, id=id)
    assert (outcome.status, outcome.ids) == ("accepted", {"app": app})
    assert (outcome.position, outcome.version) == (commits[-1].position, 2)
    assert len(await desk.commits("app", app)) == 2 + others


@pytest.mark.parametrize("name", ["app.create", "dataset.create", "message.send", "provider.register"])
async def test_a_lost_outcome_of_something_new_is_found_in_the_log(desk: Desk, name: str) -> None:
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    fields: dict[str, Any] = {
        "message.send": {"app": app, "query": "When?"},
        "provider.register": {"name": "lab", "base_url": "https://example.com", "key": KEY},
    }.get(name, {"name": "New"})
    noun = {"message.send": "conversation"}.get(name, name.partition(".")[0])
    id = new_id()
    await dies(desk, name, fields, id)
    target = "lab" if noun == "provider" else id
    [commit] = await desk.commits(noun, target)
    outcome = await desk.send(name, fields, id=id)
    assert (outcome.status, outcome.position, outcome.ids[noun]) == ("accepted", commit.position, target)
    assert len(await desk.commits(noun, target)) == 1


async def test_what_was_done_is_accepted_though_the_world_has_changed(desk: Desk) -> None:
    """The dataset and the app were deleted between the commit and the outcome."""
    dataset, app = await desk.done("dataset.create", name="Rules"), await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    upload, configure, send = new_id(), new_id(), new_id()
    fields = {"dataset": dataset, "name": "a.txt", "text": "x"}
    await dies(desk, "document.upload", fields, upload)
    await dies(desk, "app.configure", {"app": app, "datasets": [dataset]}, configure)
    await dies(desk, "message.send", {"app": app, "query": "When?"}, send)
    await desk.done("dataset.delete", dataset=dataset)
    await desk.done("app.delete", app=app)
    uploaded = await desk.send("document.upload", fields, id=upload)
    assert (uploaded.status, uploaded.ids) == ("accepted", {"document": upload})
    configured = await desk.send("app.configure", {"app": app, "datasets": [dataset]}, id=configure)
    assert (configured.status, configured.version, configured.ids) == ("accepted", 3, {"app": app})
    sent = await desk.send("message.send", {"app": app, "query": "When?"}, id=send)
    assert (sent.status, sent.ids) == ("accepted", {"message": send, "conversation": send})
    assert (await desk.send("message.send", app=app, query="When?")).code == "not_found"


async def test_a_lost_rejection_is_given_again(desk: Desk) -> None:
    id = new_id()
    await dies(desk, "app.delete", {"app": new_id()}, id)
    assert (await desk.send("app.delete", {"app": new_id()}, id=id)).code == "not_found"


# --- many at once --------------------------------------------------------------------------------------------


async def test_a_hundred_commands_at_once_on_one_aggregate(desk: Desk) -> None:
    """Half of them through another process, that cannot take turns with the first."""
    app = await desk.done("app.create", name="Guide")
    desks = [desk, Desk(desk.server, desk.tenant)]

    async def configure(number: int) -> Outcome:
        id = new_id()
        while True:
            try:
                return await desks[number % 2].send("app.configure", {"app": app, "prompt": f"{number}"}, id=id)
            except Unavailable:
                continue

    outcomes = await asyncio.gather(*(configure(number) for number in range(100)))
    assert {outcome.status for outcome in outcomes} == {"accepted"}
    assert sorted(int(outcome.version or 0) for outcome in outcomes) == list(range(2, 102))
    assert len({outcome.position for outcome in outcomes}) == 100
    assert await desk.types("app", app) == ["app.created.v2", *["app.configured.v3"] * 100]
    for outcome in outcomes:
        assert await desk.outcomes.get(desk.tenant, outcome.command) == outcome


async def test_a_long_conversation_goes_on_from_its_snapshot(desk: Desk) -> None:
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    first = await desk.send("message.send", app=app, query="0?")
    talk = first.ids["conversation"]
    for number in range(1, 251):
        last = await desk.send("message.send", app=app, query=f"{number}?", conversation=talk)
    fresh = Desk(desk.server, desk.tenant)
    loaded = await fresh.repository.get(type(await fresh.fold("conversation", talk)), desk.tenant, talk)
    assert loaded is not None
    assert vars(loaded) == vars(await fresh.fold("conversation", talk))
    assert (last.version, loaded.version) == (252, 252)
    assert len(await desk.commits("conversation", talk)) == 251


# --- secrets -------------------------------------------------------------------------------------------------


async def test_a_key_is_on_no_record(desk: Desk) -> None:
    memory = desk.server
    assert isinstance(memory, Memory)
    register = {"name": "lab", "base_url": "https://models.example.com/v1", "key": KEY}
    await desk.done("provider.register", **register)
    await desk.done("provider.register", **register | {"base_url": "http://10.0.0.7:8000"})
    for name, payload in [
        ("provider.register", {**register, "extra": 1}),
        ("provider.register", {**register, "key": [KEY]}),
        ("provider.register", {**register, "key": KEY + "\0"}),
        ("provider.register", {**register, "base_url": f"https://ada:{KEY}@example.com"}),
        ("provider.register", orjson.dumps(register)[:-1]),
        ("provider.registre", register),
        ("Provider.register", register),
        ("providers.register", register),
    ]:
        outcome = await desk.send(name, payload)
        assert outcome.status == "rejected"
        assert outcome.excerpt is None
    messages = [message for stream in memory.streams.values() for message in stream.messages]
    assert (len(messages), len(memory.streams[OUTCOMES].messages)) == (12, 10)
    assert [message for message in messages if KEY in repr(message)] == []
    provider = await desk.fold("provider", "lab")
    assert isinstance(provider, Provider)
    assert desk.vault.open(desk.tenant, provider.credentials[0]["sealed_key"]) == KEY


async def test_a_verifier_is_in_no_message(desk: Desk) -> None:
    memory = desk.server
    assert isinstance(memory, Memory)
    id = await desk.done("sql_login.create", name="bi", verifier=VERIFIER)
    create = {"name": "bi", "verifier": VERIFIER}
    for payload in (
        {**create, "extra": 1},
        {**create, "name": "B I"},
        {"name": VERIFIER},
        {**create, "name": [VERIFIER]},
    ):
        outcome = await desk.send("sql_login.create", payload)
        assert (outcome.status, outcome.excerpt) == ("rejected", None)
    messages = [message for stream in memory.streams.values() for message in stream.messages]
    assert [message for message in messages if VERIFIER in repr(message) or VERIFIER[-44:] in repr(message)] == []
    login = await desk.fold("sql_login", id)
    assert isinstance(login, SqlLogin)
    assert desk.vault.open(desk.tenant, login.sealed_verifier) == VERIFIER


@pytest.mark.parametrize(
    "verifier",
    [
        "a password in clear",
        "",
        VERIFIER + "\n",
        VERIFIER.replace("SHA-256", "SHA-1"),
        VERIFIER.replace("4096", "1"),
        VERIFIER[:-1],
        "md5" + "0" * 32,
        VERIFIER + "' SUPERUSER",
    ],
)
async def test_a_verifier_is_nothing_that_postgresql_takes_for_a_password(desk: Desk, verifier: str) -> None:
    assert await desk.fails("sql_login.create", name="bi", verifier=verifier) == ("invalid", "verifier")


# --- whatever comes ------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def as_json(value: object) -> bytes:
    """Integers of any size, which orjson does not write."""
    return json.dumps(value).encode()


class Anything:
    """Payloads for every command, right ones among them, that name what is there."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ids: dict[str, str] = {}

    async def start(self) -> None:
        desk, ids = self.desk, self.ids
        await desk.done("provider.register", name="lab", base_url="https://example.com", key=KEY)
        await desk.done("model.set", provider="lab", model="small")
        await desk.done("model.set_default", type="chat", provider="lab", model="small")
        for noun in ("dataset", "app"):
            ids[noun] = await desk.done(f"{noun}.create", name="Thing")
        for type in ("transcription", "speech"):
            await desk.done("model.set_default", type=type, provider="lab", model="small")
        suggesting = {"suggest_after_answer": {"model": {"provider": "lab", "name": "m"}}}
        await desk.done("app.configure", app=ids["app"], variables=[{"name": "tone"}], features={**suggesting, **AUDIO})
        ids["annotation"] = await desk.done("annotation.create", app=ids["app"], question="?", answer="!")
        ids["recording"] = await desk.blobs.put(desk.tenant, PACKED)
        await desk.done("dataset.add_metadata_field", dataset=ids["dataset"], name="year", type="number")
        ids["document"] = await desk.done("document.upload", dataset=ids["dataset"], name="a", text="x")
        await self._index(await desk.done("document.upload", dataset=ids["dataset"], name="b", text="x"))
        ids["message"] = ids["conversation"] = await desk.done("message.send", app=ids["app"], query="?")
        await desk.answered(ids["conversation"], ids["message"])
        slogans = await desk.done("app.create", name="Slogans", mode="completion")
        of_completion = {"model": {"provider": "lab", "name": "m"}, "features": {"more_like_this": True}}
        await desk.done("app.configure", app=slogans, **of_completion)
        ids["slogan"] = await desk.done("message.send", app=slogans, query="?")
        await desk.answered(ids["slogan"], ids["slogan"])
        ids["chart"] = await desk.done("app.create", name="Chart", mode="workflow")
        await desk.done("workflow.save", app=ids["chart"], document=CHART)
        await desk.done("workflow.publish", workflow=ids["chart"])
        ids["run"], ids["broken"] = [await desk.done("run.start", app=ids["chart"]) for _ in range(2)]
        form = Form(key="ask", node="ask", until="2999-01-01", content="", inputs=[], actions=[{"id": "yes"}])
        now = datetime.now(UTC)
        await desk.change("run", ids["run"], lambda it: it.step(now, steps=[], values=[], forms=[form]))
        await desk.change("run", ids["broken"], lambda it: it.fail(now, code="timeout", reason="Silence."))
        ids["tag"] = await desk.done("tag.create", kind="app", name=new_id())
        ids["dead_letter"] = await desk.bury("commands", new_id())
        ids["call"] = await desk.called()
        await desk.done("budget.set", name="month", scope="tenant", amount_usd=100)
        await desk.blobs.put(HOUSE, INSTALLED)
        await desk.done("plugin.install", plugin="mask", package=digest(INSTALLED))
        await desk.done("plugin.enable", plugin="mask")
        await desk.done("toolset.register", name="mail", kind="mcp", mcp={"url": "https://mail.example/mcp"})
        of_user = {"url": "https://crm.example/mcp", "auth": {"type": "bearer", "per_user": True}}
        await desk.done("toolset.register", name="crm", kind="mcp", mcp=of_user)
        await desk.done("user_secret.set", toolset="crm", user="ada", secret="s")
        ids["held"] = await desk.held(ids["app"], ids["conversation"], ids["message"])
        await desk.done("route.configure", name="fast", groups=[{"members": [{"provider": "lab", "name": "m"}]}])
        for verb in ("set", "impose"):
            await desk.done(f"limits.{verb}", quantity="replays", period="day", most=10**9)
            await desk.done(f"quota.{verb}", name="calls", unit="calls", period="day", limit=10**9)
        await desk.done("bus_login.open", name="services")
        ids["sql_login"] = await desk.done("sql_login.create", name="bi", verifier=VERIFIER)
        for who in ("owner", "member", "other"):
            ids[who] = await desk.done("account.create", email=f"{who}-{new_id()}@example.com", name=who)
        company = ids["tenant"] = f"t{new_id()}"
        await desk.done("tenant.create", tenant=company, owner=ids["owner"], name="Mill")
        await desk.done("tenant.add_member", tenant=company, account=ids["member"], role="member")
        invitation = {"role": "member", "ends_at": "2999-01-01T00:00:00Z"}
        await desk.done("tenant.invite", tenant=company, digest="0" * 64, **invitation)
        ids["key"] = await desk.done("api_key.create", name="All", digest="3" * 64, hint="z9", permissions=["chat"])

    async def _index(self, document: str) -> None:
        """No worker has a document whose segments can be found."""
        desk, now = self.desk, datetime.now(UTC)
        segments = encode_segments("a-model", [Segment(0, "One.", 0, 4, None, None, 1, [1, 2, 3])])
        digest = await desk.blobs.put(desk.tenant, segments)

        def work(document: Document) -> None:
            document.start(now, stage="parsing")
            document.parsed(now, pages=None, characters=4)
            document.split(now, segments=digest, count=1, tokens=1, model="a-model")
            document.indexed(now, first=0, count=1)

        await desk.change("document", document, work)
        self.ids |= {"indexed": document, "segment": segment_id(document, digest, 0)}

    def right(self, name: str) -> st.SearchStrategy[dict[str, Any]]:
        ids = self.ids
        mask = {"plugin": st.just("mask")}
        model = {"provider": st.just("lab"), "model": st.just("small")}
        text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
        dataset, indexed = {"dataset": st.just(ids["dataset"])}, {"document": st.just(ids["indexed"])}
        limit = {"quantity": st.just("replays"), "period": st.just("day"), "scope": st.just("tenant")}
        quota = {"name": st.just("calls"), "unit": st.sampled_from(["calls", "tokens", "money"])}
        quota |= {"period": st.just("day"), "limit": st.integers(10**6, 10**9)}
        segment = {**indexed, "segment": st.just(ids["segment"])}
        talk = {"conversation": st.just(ids["conversation"])}
        message = {**talk, "message": st.just(ids["message"])}
        icon = st.none() | st.fixed_dictionaries({"type": st.just("emoji"), "icon": text})
        slogan = dict.fromkeys(("conversation", "message"), st.just(ids["slogan"]))
        came, credential = {"address": text, "browser": text}, st.sampled_from(["token", "link", "key"])
        fields: dict[str, dict[str, Any]] = {
            "app.create": {"name": text, "description": text, "mode": st.sampled_from(["chat", "completion"])},
            "app.configure": {
                "app": st.just(ids["app"]),
                "prompt": text,
                "datasets": st.lists(st.just(ids["dataset"]), max_size=2),
                "model": st.just({"provider": "lab", "name": "m"}) | st.just({}),
                "variables": st.just([{"name": "tone"}]),
                "features": st.just(AUDIO),
                "retrieval": st.fixed_dictionaries({"top_k": st.integers(1, 50)}),
            },
            "app.delete": {"app": st.just(ids["app"])},
            "app.rename": {"app": st.just(ids["app"]), "name": text, "description": text | st.none()},
            "app.set_icon": {"app": st.just(ids["app"]), "icon": icon},
            "app.set_site": {"app": st.just(ids["app"]), "title": text, "icon": icon, "custom_disclaimer": text},
            "app.set_triggers": {"app": st.just(ids["chart"]), "enabled": st.booleans()},
            "app.keep_file": {"app": st.just(ids["app"]), "file": st.just(ids["recording"])},
            "workflow.save": {"app": st.just(ids["chart"]), "document": st.just(CHART), "secrets": st.just({})},
            "workflow.publish": {"workflow": st.just(ids["chart"]), "name": text.map(lambda name: name[:20])},
            "workflow.restore": {"workflow": st.just(ids["chart"]), "number": st.integers(1, 3)},
            "tag.create": {"kind": st.sampled_from(["app", "knowledge"]), "name": text},
            "tag.rename": {"kind": st.just("app"), "tag": st.just(ids["tag"]), "name": text},
            "tag.delete": {"kind": st.just("app"), "tag": st.just(ids["tag"])},
            **{f"tag.{verb}": {"tag": st.just(ids["tag"]), "app": st.just(ids["app"])} for verb in ("bind", "unbind")},
            "app.set_annotation_reply": {
                "app": st.just(ids["app"]),
                "enabled": st.booleans(),
                "score_threshold": st.floats(0, 1),
                "embedding_model": st.sampled_from(EMBEDDING_MODELS) | st.none(),
            },
            "annotation.create": {"app": st.just(ids["app"]), "question": text, "answer": text},
            "annotation.edit": {"annotation": st.just(ids["annotation"]), "answer": text},
            "annotation.remove": {"annotation": st.just(ids["annotation"])},
            "dataset.create": {"name": text},
            "dataset.configure": {
                "dataset": st.just(ids["dataset"]),
                "embedding_model": st.sampled_from(EMBEDDING_MODELS) | text,
            },
            "dataset.delete": {"dataset": st.just(ids["dataset"])},
            "document.upload": {
                "dataset": st.just(ids["dataset"]),
                "name": text,
                "text": text,
                "metadata": st.dictionaries(text, st.integers() | text, max_size=2),
            },
            "document.delete": {"document": st.just(ids["document"])},
            "document.rename": {**indexed, "name": text},
            "document.set_metadata": {**indexed, "metadata": st.dictionaries(text, st.integers() | text, max_size=2)},
            **{f"document.{verb}": indexed for verb in ("disable", "enable", "archive", "unarchive", "reprocess")},
            "segment.add": {**indexed, "content": text, "answer": text | st.none()},
            "segment.edit": {**segment, "content": text},
            **{f"segment.{verb}": segment for verb in ("disable", "enable", "delete")},
            "dataset.reprocess": dataset,
            "dataset.test": {"datasets": st.just([ids["dataset"]]), "query": text},
            "dataset.add_metadata_field": {**dataset, "name": text, "type": st.sampled_from(["string", "time"])},
            "dataset.rename_metadata_field": {**dataset, "name": st.just("year"), "new_name": text},
            "dataset.remove_metadata_field": {**dataset, "name": st.just("year")},
            "document.retry": {"document": st.just(ids["document"])},
            "message.send": {
                "app": st.just(ids["app"]),
                "query": text,
                "conversation": st.just(ids["conversation"]) | st.none(),
                "inputs": st.just({"tone": "calm"}) | st.just({}),
                "parent_message": st.just(ids["message"]) | st.none(),
            },
            "audio.transcribe": {
                "app": st.just(ids["app"]),
                "digest": st.just(ids["recording"]),
                "key": st.just("A" * 43 + "="),
            },
            "audio.speak": {"app": st.just(ids["app"]), "text": text, "voice": st.just("") | text},
            "message.stop": {"conversation": st.just(ids["conversation"]), "message": st.just(ids["message"])},
            "message.rate": {
                "conversation": st.just(ids["conversation"]),
                "message": st.just(ids["message"]),
                "rating": st.sampled_from(["like", "dislike", None]),
                "content": text,
            },
            **{f"message.{verb}": message for verb in ("retry", "regenerate", "save", "suggest", "unsave")},
            "message.more_like_this": slogan,
            **{f"conversation.{verb}": talk for verb in ("pin", "unpin")},
            "conversation.request_name": {"conversation": slogan["conversation"]},
            "dead_letter.retry": {"dead_letter": st.just(ids["dead_letter"])},
            "dead_letter.discard": {"dead_letter": st.just(ids["dead_letter"])},
            "quarantine.discard": {
                "quarantine": st.just(quarantine_id("EVENTS", 3)),
                "stream": st.just("EVENTS"),
                "sequence": st.just(3),
            },
            "conversation.rename": {"conversation": st.just(ids["conversation"]), "name": text},
            "conversation.delete": {"conversation": st.just(ids["conversation"])},
            "provider.register": {"name": st.just("lab"), "base_url": st.just("https://example.com"), "key": text},
            "provider.add_credential": {"provider": st.just("lab"), "name": st.just("spare"), "key": text},
            "provider.remove_credential": {"provider": st.just("lab"), "name": st.sampled_from(["spare", "default"])},
            "provider.check": {"provider": st.just("lab"), "model": text | st.none()},
            "provider.remove": {"provider": st.just("lab")},
            "model.set": {**model, "abilities": st.just({"tools": False}), "rpm": st.integers(1, 9) | st.none()},
            "model.remove": model,
            "model.set_default": {"type": st.just("chat"), **model},
            "model.remove_default": {"type": st.just("chat")},
            "conversation.fork": {
                "conversation": st.just(ids["conversation"]),
                "message": st.just(ids["message"]),
                "name": text,
            },
            "replay.request": {
                "call": st.just(ids["call"]),
                "model": st.just({"provider": "lab", "name": "m"}) | st.none(),
                "parameters": st.dictionaries(text, st.integers() | text, max_size=2) | st.none(),
                "configuration": st.integers(1, 2) | st.none(),
            },
            "route.configure": {
                "name": st.just("fast"),
                "groups": st.just([{"members": [{"provider": "lab", "name": "m"}]}]),
                "wait_s": st.integers(0, 300),
            },
            "route.remove": {"route": st.just("fast")},
            "toolset.register": {
                "name": st.just("mail"),
                "kind": st.just("mcp"),
                "mcp": st.just({"url": "https://mail.example/mcp"}),
                "secret": text | st.none(),
            },
            **{f"toolset.{verb}": {"toolset": st.just("mail")} for verb in ("refresh", "remove")},
            "user_secret.set": {"toolset": st.just("crm"), "user": st.just("ada"), "secret": text},
            "user_secret.remove": {"toolset": st.just("crm"), "user": st.just("ada")},
            "plugin.install": {**mask, "package": st.just(digest(INSTALLED))},
            **{f"plugin.{verb}": mask for verb in ("remove", "enable", "disable", "clear")},
            "plugin.configure": {**mask, "settings": st.just({"mark": "x"}) | st.just({})},
            "tool_call.release": {"tool_call": st.just(ids["held"])},
            "tool_call.refuse": {"tool_call": st.just(ids["held"]), "reason": text},
            "budget.set": {
                "name": st.just("month"),
                "scope": st.sampled_from(["tenant", "model", "user"]),
                "subject": st.just("") | text,
                "amount_usd": st.integers(1, 100),
            },
            "budget.remove": {"budget": st.just("month")},
            **{f"run.{verb}": {"app": st.just(ids["chart"]), "user": text} for verb in ("start", "try")},
            **{f"run.{verb}": {"source": st.just(ids["broken"])} for verb in ("retry", "fork")},
            "run.stop": {"run": st.just(ids["run"])},
            "run.answer": {"run": st.just(ids["run"]), "step": st.just("ask"), "action": st.just("yes")},
            **{f"limits.{verb}": {**limit, "most": st.integers(0, 10**9)} for verb in ("set", "impose")},
            **{f"limits.{verb}": limit for verb in ("remove", "lift")},
            **{f"quota.{verb}": quota for verb in ("set", "impose")},
            **{f"quota.{verb}": {"quota": st.just("calls")} for verb in ("remove", "lift")},
            "bus_login.open": {"name": st.just("services")},
            "bus_login.close": {"bus_login": st.just("services")},
            "sql_login.create": {"name": st.just("bi"), "verifier": st.just(VERIFIER)},
            "sql_login.revoke": {"sql_login": st.just(ids["sql_login"])},
            "end_user.erase": {"user": text},
            "door.report_sign_in": {"account": text | st.none(), **came, "credential": credential},
            "door.report_refusals": {
                "address": text,
                "credential": credential,
                "count": st.integers(1, 99),
            },
            "door.report_use": {"actor": st.just("anon"), **came},
            "trace.open": {"trace": text},
            "trace.search": {"search": text},
            **self._of_access(text),
        }
        return st.fixed_dictionaries(fields[name])

    def _of_access(self, text: st.SearchStrategy[str]) -> dict[str, dict[str, Any]]:
        ids = self.ids
        account, tenant = {"account": st.just(ids["other"])}, {"tenant": st.just(ids["tenant"])}
        member, digest = {"account": st.just(ids["member"])}, {"digest": st.just("0" * 64)}
        key = {"api_key": st.just(ids["key"])}
        of_key = {"digest": st.text("0123456789abcdef", min_size=64, max_size=64), "hint": st.just("a1B2")}
        role = {"role": st.sampled_from(["admin", "editor", "viewer"])}
        return {
            "account.create": {"email": st.emails().filter(lambda it: len(it) < 255), "name": text},
            "account.create_service": {"name": text},
            "account.rename": {**account, "name": text},
            "account.change_password": {**account, "password": st.just(PASSWORD)},
            **{f"account.{verb}": account for verb in ("sign_out", "disable", "enable", "erase")},
            "tenant.create": {
                "tenant": st.from_regex(r"[a-z0-9][a-z0-9_-]{8,20}", fullmatch=True),
                "owner": st.just(ids["owner"]),
                "name": text,
            },
            "tenant.rename": {**tenant, "name": text},
            "tenant.add_member": {**tenant, **account, **role},
            "tenant.set_role": {**tenant, **member, **role},
            "tenant.remove_member": {**tenant, **member},
            "tenant.transfer": {**tenant, **member},
            "tenant.invite": {
                **tenant,
                **role,
                "digest": of_key["digest"],
                "ends_at": st.just("2999-01-01T00:00:00Z"),
            },
            "tenant.accept": {**tenant, **digest, **account},
            "tenant.withdraw": {**tenant, **digest},
            "tenant.archive": tenant,
            "tenant.unarchive": tenant,
            "api_key.create": {**of_key, "name": text, "permissions": st.just(["chat"])},
            "api_key.rename": {**key, "name": text},
            "api_key.replace": {**key, **of_key},
            "api_key.revoke": key,
        }

    def payloads(self, name: str) -> st.SearchStrategy[bytes]:
        """Right, right but for one field, arbitrary objects, arbitrary JSON, cut off, and arbitrary bytes."""
        right = self.right(name)
        names = st.sampled_from([*ROUTES[name].command.model_fields, "extra"])
        bent = st.tuples(right, names, json_values).map(lambda it: it[0] | {it[1]: it[2]})
        short = st.tuples(right, names).map(lambda it: {field: it[0][field] for field in it[0] if field != it[1]})
        anything = st.dictionaries(names, json_values, max_size=4)
        objects = (right | bent | short | anything | json_values).map(as_json)
        cut = st.tuples(objects, st.integers(0, 60)).map(lambda it: it[0][: -it[1] or None])
        return right.map(as_json) | objects | cut | st.binary(max_size=60)


NEVER = {"document.retry", "message.retry", "message.stop", "plugin.clear"}
"""Commands that the state of things there does not allow."""

DELETES = {
    *("tag.delete", "app.delete", "dataset.delete", "document.delete", "conversation.delete"),
    *("provider.remove", "provider.remove_credential", "route.remove", "budget.remove", "bus_login.close"),
    *("limits.remove", "limits.lift", "account.erase", "model.remove", "model.remove_default"),
    *("quota.remove", "quota.lift"),
    *("tenant.add_member", "tenant.remove_member", "tenant.transfer", "tenant.accept", "tenant.withdraw"),
    *("api_key.revoke", "sql_login.revoke", "toolset.remove", "plugin.remove"),
    *("tool_call.release", "tool_call.refuse", "user_secret.remove"),
}


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_whatever_comes_has_an_outcome(desk: Desk, name: str) -> None:
    """Nothing raises; what is rejected says why, and what is accepted folds."""
    anything = Anything(desk)
    await anything.start()
    statuses = set()
    payloads: list[bytes] = []

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(anything.payloads(name))
    def collect(payload: bytes) -> None:
        payloads.append(payload)

    collect()
    assert len(payloads) >= 60
    for payload in payloads:
        outcome = await desk.send(name, payload)
        assert await desk.outcomes.get(outcome.metadata.tenant, outcome.command) == outcome
        if outcome.status == "rejected":
            assert outcome.code
            assert outcome.message
        else:
            noun = ROUTES[name].noun.TOPIC
            folded = await desk.fold(noun, outcome.ids[noun])
            assert folded.version >= int(outcome.version or 0) > 0
            if name in DELETES:
                await anything.start()
        statuses.add(outcome.status)
    assert statuses == ({"rejected"} if name in NEVER else {"accepted", "rejected"})


async def test_a_command_without_a_clock_still_works(desk: Desk) -> None:
    """An id of the distant past or future is an id like any other."""
    for milliseconds in (0, 2**48 - 1):
        outcome = await desk.send("app.create", {"name": "x"}, id=uuid7(milliseconds, new_id().encode()))
        assert outcome.status == "accepted"


async def test_the_outcome_of_a_rejected_command_has_its_target(desk: Desk) -> None:
    app = new_id()
    for name, fields, ids in (
        ("app.delete", {"app": app}, {"app": app}),
        ("app.delete", {"app": app, "and": "more"}, {"app": app}),
        ("conversation.delete", {"conversation": app}, {"conversation": app}),
        ("bus_login.close", {"bus_login": "month"}, {"bus_login": "month"}),
        ("bus_login.close", {"bus_login": "Of a month"}, {}),
        ("provider.remove", {"provider": "sk-pasted-key"}, {}),
        ("app.delete", {"app": 7}, {}),
        ("app.delete", {}, {}),
        ("app.create", {"name": ""}, {}),
    ):
        outcome = await desk.send(name, **fields)
        assert (outcome.status, outcome.ids) == ("rejected", ids), name
        assert await desk.outcomes.get(desk.tenant, outcome.command) == outcome
    assert (await desk.send("app.delete", b'{"app": ')).ids == {}
