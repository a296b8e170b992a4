"""The effect and the rules of every command, on real streams and blobs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.access.actor import ANON
from domain.access.permissions import PERMISSIONS, Permission
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.knowledge.segmentation import Segmentation
from domain.log import Metadata
from domain.models.model import Model, model_id
from domain.models.provider import Provider
from domain.models.replay import Replay
from domain.work.quarantine import quarantine_id
from domain.workflows.run import Form
from handlers.routes import ROUTES, is_private
from handlers.tools.storage import Storage
from handlers.work.audit import named_blobs
from tests.handlers.desk import VERIFIER, Desk
from tests.memory import Memory
from tests.packages import FILTER, digest, package

ADDRESS = "https://models.example.com/v1"
LAB = {"provider": "lab", "name": "small"}
PACKED = bytes(12) + AESGCM(bytes(32)).encrypt(bytes(12), b"ID3 a recording", None)
"""A recording as its sender encrypts it, with a key of zeros."""

CHART: dict[str, Any] = {
    "app": {"mode": "workflow"},
    "workflow": {
        "graph": {
            "nodes": [{"id": "s", "data": {"type": "start"}}, {"id": "e", "data": {"type": "end"}}],
            "edges": [{"source": "s", "target": "e"}],
        },
        "environment_variables": [{"name": "KEY", "value_type": "secret", "value": ""}],
    },
}
"""A graph of a workflow."""

FORM = Form(key="ask", node="ask", until="2999-01-01", content="Open it?", inputs=[], actions=[{"id": "yes"}])

OF_LAB, KNOWN = {"provider": "lab", "model": "small"}, {"provider": "lab", "model": "known"}
INSTALLED, NEWER = package(), package(manifest={**FILTER, "version": "1.1.0"})
PASSWORD = f"$argon2id$v=19$m=65536,t=3,p=4${'c2FsdA' * 4}${'aGFzaA' * 8}"


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@dataclass
class World:
    """One of everything that a command can name; `failed` is a document in error, `answered` a message with an answer
    in `talk`, `asked` one without, `silent` one whose answer failed, `slogan` an answered one of the completion app
    `slogans`, `label` a tag of apps that `app` has, `letter` a dead letter, `call` a model call, `note` an annotation,
    `held` a tool call that waits, `asking` one whose server asks, `chart` an app with a graph, whose draft has the
    digest `draft`, `run` a run of it with a form, `source` one that failed, `ready` a completed document, `segment`
    the first of its three, `login` a SQL login."""

    app: str
    dataset: str
    document: str
    failed: str
    talk: str
    answered: str
    asked: str
    silent: str
    letter: str
    call: str
    ready: str
    segment: str
    login: str
    slogans: str
    slogan: str
    label: str
    note: str
    held: str
    asking: str
    chart: str
    draft: str
    run: str
    source: str
    company: str
    owner: str
    member: str
    other: str
    key: str


@pytest.fixture
async def world(desk: Desk) -> World:
    dataset = await desk.done("dataset.create", name="Rules")
    await desk.send("provider.register", name="lab", base_url=ADDRESS, key="k")
    await desk.send("model.set", **KNOWN)
    await desk.send("model.set_default", type="rerank", **KNOWN)
    app = await desk.done("app.create", name="Guide")
    for type in ("transcription", "speech"):
        await desk.done("model.set_default", type=type, **KNOWN)
    await desk.blobs.put(desk.tenant, PACKED)
    variables, suggesting = [{"name": "tone", "default": "calm"}], {"suggest_after_answer": {"model": LAB}}
    features = {**suggesting, "speech_to_text": True, "text_to_speech": {"enabled": True}}
    await desk.done("app.configure", app=app, datasets=[dataset], variables=variables, features=features)
    document, failed = [await desk.done("document.upload", dataset=dataset, name="a.txt", text="x") for _ in range(2)]
    now = datetime.now(UTC)
    await desk.change("document", failed, lambda it: it.fail(now, stage="parsing", code="no_text", reason="Empty."))
    talk = answered = await desk.done("message.send", app=app, query="When?")
    await desk.answered(talk, answered)
    asked = await desk.done("message.send", app=app, query="Where?", conversation=talk)
    silent = await desk.done("message.send", app=app, query="Who?", conversation=talk)
    fails = {"message": silent, "code": "timeout", "reason": "Silence.", "answer": ""}
    await desk.change("conversation", talk, lambda it: it.fail(now, **fails))
    slogans = await desk.done("app.create", name="Slogans", mode="completion")
    topic, features = {"name": "topic", "default": "the mill"}, {"more_like_this": True}
    await desk.done("app.configure", app=slogans, model=LAB, variables=[topic], features=features)
    slogan = await desk.done("message.send", app=slogans, inputs={"topic": "the sluice"})
    await desk.answered(slogan, slogan)
    label = await desk.done("tag.create", kind="app", name="Mill")
    await desk.done("tag.bind", tag=label, app=app)
    letter = await desk.bury("commands", new_id())
    call = await desk.called(request=instructed_by(app))
    await desk.done("route.configure", name="fast", groups=[{"members": [{"provider": "lab", "name": "small"}]}])
    await desk.done("budget.set", name="month", scope="tenant", amount_usd=100)
    await desk.done("limits.set", quantity="replays", period="day", most=100)
    await desk.done("limits.impose", quantity="replays", period="day", most=100)
    await desk.done("quota.impose", name="most", unit="calls", period="month", limit=10**6)
    for data in (INSTALLED, NEWER):
        await desk.blobs.put(HOUSE, data)
    await desk.done("plugin.install", plugin="mask", package=digest(INSTALLED))
    await desk.done("plugin.enable", plugin="mask")
    await Storage(desk.repository, desk.files).set("mask", Metadata("1", desk.tenant, "1"), "mark", b"*", 100)
    await desk.done("bus_login.open", name="services")
    login = await desk.done("sql_login.create", name="bi", verifier=VERIFIER)
    await desk.done("toolset.register", **MAIL)
    await desk.done("toolset.register", **CRM)
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="s")
    held = await desk.held(app, talk, asked)
    asking = await desk.asking(app, talk, asked)
    chart = await desk.done("app.create", name="Chart", mode="workflow")
    await desk.done("workflow.save", app=chart, document=CHART, secrets={"KEY": "k"})
    first = sha256_of(CHART)
    await desk.done("workflow.publish", workflow=chart)
    renamed = {**CHART, "version": "0.1.5"}
    draft = sha256_of(renamed)
    await desk.done("workflow.save", app=chart, document=renamed, replaces=first)
    run, source = [await desk.done("run.start", app=chart) for _ in range(2)]
    await desk.change("run", run, lambda it: it.step(now, steps=[], values=[], forms=[FORM]))
    await desk.change("run", source, lambda it: it.fail(now, code="timeout", reason="Silence."))
    note = await desk.done("annotation.create", app=app, question="When?", answer="At six.")
    await desk.done("dataset.add_metadata_field", dataset=dataset, name="year", type="number")
    ready = await desk.done("document.upload", dataset=dataset, name="b.txt", text="x")
    await desk.change("document", ready, cut_into_three)
    segment = segment_id(ready, "d" * 64, 0)
    owner, member, other = [
        await desk.done("account.create", email=f"{name}@example.com", name=name) for name in ("ada", "bob", "cy")
    ]
    company = await desk.done("tenant.create", tenant="mill", owner=owner, name="Mill")
    await desk.done("tenant.add_member", tenant=company, account=member, role="member")
    invitation = {"digest": "0" * 64, "role": "member", "ends_at": "2999-01-01T00:00:00Z"}
    await desk.done("tenant.invite", tenant=company, **invitation)
    key = await desk.done("api_key.create", name="All", digest="3" * 64, hint="z9", permissions=["chat"])
    return World(
        *(app, dataset, document, failed, talk, answered, asked, silent, letter, call, ready, segment, login),
        *(slogans, slogan, label, note, held, asking, chart, draft, run, source),
        *(company, owner, member, other, key),
    )


def sha256_of(document: dict[str, Any]) -> str:
    """The digest of a document as it is stored."""
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()


def tenant_of(noun: str, desk: Desk) -> str:
    return HOUSE if noun in ("account", "plugin", "tenant") else desk.tenant


def cut_into_three(document: Document) -> None:
    now = datetime.now(UTC)
    document.start(now, stage="parsing")
    document.parsed(now, pages=None, characters=1)
    document.split(now, segments="d" * 64, count=3, tokens=3, model="a-model")
    document.indexed(now, first=0, count=3)


def instructed_by(app: str) -> dict[str, Any]:
    piece = {"text": "Be brief.", "from": "instructions", "app": app, "configuration": 1}
    return {"messages": [{"role": "system", "pieces": [piece]}], "max_tokens": 64, "parameters": {"temperature": 0.2}}


OF_USER = {"type": "bearer", "per_user": True}

CRM: dict[str, Any] = {"name": "crm", "kind": "mcp", "mcp": {"url": "https://crm.example/mcp", "auth": OF_USER}}

MAIL: dict[str, Any] = {"name": "mail", "kind": "mcp", "mcp": {"url": "https://mail.example/mcp"}, "secret": "s"}

ACCEPTED: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("app.create", {"name": "Other"}, "app", ["app.created.v2"]),
    ("app.configure", {"app": "{app}", "model": LAB, "datasets": ["{dataset}"]}, "app", ["app.configured.v3"]),
    ("app.delete", {"app": "{app}"}, "app", ["app.deleted.v1"]),
    ("app.rename", {"app": "{app}", "description": "Answers."}, "app", ["app.renamed.v1"]),
    ("app.set_icon", {"app": "{app}", "icon": {"type": "emoji", "icon": "⚓"}}, "app", ["app.icon_set.v1"]),
    ("app.set_site", {"app": "{app}", "title": "Ask"}, "app", ["app.site_set.v1"]),
    ("app.set_triggers", {"app": "{chart}", "enabled": False}, "app", ["app.triggers_set.v1"]),
    ("app.keep_file", {"app": "{app}", "file": hashlib.sha256(PACKED).hexdigest()}, "app", ["app.file_kept.v1"]),
    (
        "workflow.save",
        {"app": "{chart}", "document": CHART, "replaces": "{draft}", "secrets": {"KEY": "k"}},
        "workflow",
        ["workflow.draft_saved.v1"],
    ),
    ("workflow.publish", {"workflow": "{chart}", "name": "Two"}, "workflow", ["workflow.published.v1"]),
    ("workflow.restore", {"workflow": "{chart}", "number": 1}, "workflow", ["workflow.restored.v1"]),
    ("run.start", {"app": "{chart}", "version": 1}, "run", ["run.started.v1"]),
    ("run.try", {"app": "{chart}", "user": "ada"}, "run", ["run.started.v1"]),
    ("run.retry", {"source": "{source}"}, "run", ["run.started.v1"]),
    ("run.fork", {"source": "{source}", "step": "e", "draft": True}, "run", ["run.started.v1"]),
    ("run.stop", {"run": "{run}"}, "run", ["run.stop_requested.v1"]),
    ("run.answer", {"run": "{run}", "step": "ask", "action": "yes"}, "run", ["run.answered.v1"]),
    ("tag.create", {"kind": "knowledge", "name": "Mill"}, "tags", ["tags.begun.v1", "tag.created.v1"]),
    ("tag.create", {"kind": "app", "name": "Locks"}, "tags", ["tag.created.v1"]),
    ("tag.rename", {"kind": "app", "tag": "{label}", "name": "Mills"}, "tags", ["tag.renamed.v1"]),
    ("tag.bind", {"tag": "{label}", "app": "{slogans}"}, "tags", ["tag.bound.v1"]),
    ("tag.unbind", {"tag": "{label}", "app": "{app}"}, "tags", ["tag.unbound.v1"]),
    ("tag.delete", {"kind": "app", "tag": "{label}"}, "tags", ["tag.deleted.v1"]),
    (
        "app.set_annotation_reply",
        {"app": "{app}", "enabled": True, "embedding_model": "a-model"},
        "app",
        ["app.annotation_reply_set.v2"],
    ),
    (
        "annotation.create",
        {"app": "{app}", "question": "When?", "answer": "At six."},
        "annotation",
        ["annotation.created.v1"],
    ),
    (
        "annotation.create",
        {"app": "{app}", "conversation": "{talk}", "message": "{answered}"},
        "annotation",
        ["annotation.created.v1"],
    ),
    ("annotation.edit", {"annotation": "{note}", "answer": "At seven."}, "annotation", ["annotation.edited.v1"]),
    ("annotation.remove", {"annotation": "{note}"}, "annotation", ["annotation.removed.v1"]),
    ("dataset.create", {"name": "Other", "description": "水门"}, "dataset", ["dataset.created.v2"]),
    (
        "dataset.configure",
        {"dataset": "{dataset}", "embedding_model": "another-model"},
        "dataset",
        ["dataset.configured.v2"],
    ),
    (
        "dataset.configure",
        {"dataset": "{dataset}", "segmentation": {"mode": "custom", "max_tokens": 100}},
        "dataset",
        ["dataset.segmentation_chosen.v1"],
    ),
    ("dataset.reprocess", {"dataset": "{dataset}"}, "dataset", ["dataset.reprocessed.v1"]),
    ("dataset.test", {"datasets": ["{dataset}"], "query": "When?"}, "dataset_query", ["dataset_query.requested.v1"]),
    ("dataset.delete", {"dataset": "{dataset}"}, "dataset", ["dataset.deleted.v1"]),
    (
        "document.upload",
        {"dataset": "{dataset}", "name": "b.md", "text": "# B"},
        "document",
        ["document.uploaded.v2"],
    ),
    (
        "document.upload",
        {"dataset": "{dataset}", "name": "faq.csv", "text": "q,a", "segmentation": {"mode": "question_answer"}},
        "document",
        ["document.uploaded.v2", "document.segmentation_chosen.v1"],
    ),
    ("document.reprocess", {"document": "{ready}"}, "document", ["document.reprocessed.v1"]),
    (
        "document.reprocess",
        {"document": "{failed}", "segmentation": {"mode": "parent_child"}},
        "document",
        ["document.segmentation_chosen.v1", "document.reprocessed.v1"],
    ),
    ("document.reprocess", {"document": "{ready}", "inherit": True}, "document", ["document.reprocessed.v1"]),
    ("document.delete", {"document": "{document}"}, "document", ["document.deleted.v1"]),
    ("document.retry", {"document": "{failed}"}, "document", ["document.retried.v1"]),
    ("document.disable", {"document": "{ready}"}, "document", ["document.disabled.v1"]),
    ("document.archive", {"document": "{ready}"}, "document", ["document.archived.v1"]),
    ("document.rename", {"document": "{ready}", "name": "c.txt"}, "document", ["document.renamed.v1"]),
    (
        "document.set_metadata",
        {"document": "{ready}", "metadata": {"year": 2026, "author": "Ada"}},
        "document",
        ["document.metadata_set.v1"],
    ),
    ("segment.add", {"document": "{ready}", "content": "More."}, "document", ["segment.added.v1"]),
    (
        "segment.edit",
        {"document": "{ready}", "segment": "{segment}", "content": "Other."},
        "document",
        ["segment.edited.v1"],
    ),
    ("segment.disable", {"document": "{ready}", "segment": "{segment}"}, "document", ["segment.disabled.v1"]),
    ("segment.delete", {"document": "{ready}", "segment": "{segment}"}, "document", ["segment.deleted.v1"]),
    (
        "dataset.add_metadata_field",
        {"dataset": "{dataset}", "name": "author", "type": "string"},
        "dataset",
        ["dataset.metadata_field_added.v1"],
    ),
    (
        "dataset.rename_metadata_field",
        {"dataset": "{dataset}", "name": "year", "new_name": "edition"},
        "dataset",
        ["dataset.metadata_field_renamed.v1"],
    ),
    (
        "dataset.remove_metadata_field",
        {"dataset": "{dataset}", "name": "year"},
        "dataset",
        ["dataset.metadata_field_removed.v1"],
    ),
    (
        "message.send",
        {"app": "{app}", "query": "Why?"},
        "conversation",
        ["conversation.started.v1", "message.asked.v4"],
    ),
    (
        "message.send",
        {"app": "{app}", "query": "Why?", "conversation": "{talk}"},
        "conversation",
        ["message.asked.v4"],
    ),
    (
        "message.send",
        {"app": "{app}", "query": "Why?", "conversation": "{talk}", "parent_message": "{answered}"},
        "conversation",
        ["message.asked.v4"],
    ),
    (
        "message.send",
        {"app": "{slogans}", "inputs": {"topic": "x"}},
        "conversation",
        ["conversation.started.v1", "message.asked.v4"],
    ),
    (
        "message.regenerate",
        {"conversation": "{talk}", "message": "{answered}"},
        "conversation",
        ["message.asked.v4"],
    ),
    (
        "message.more_like_this",
        {"conversation": "{slogan}", "message": "{slogan}"},
        "conversation",
        ["conversation.started.v1", "message.asked.v4"],
    ),
    ("message.save", {"conversation": "{talk}", "message": "{answered}"}, "conversation", ["message.saved.v1"]),
    (
        "audio.transcribe",
        {"app": "{app}", "digest": hashlib.sha256(PACKED).hexdigest(), "key": "A" * 43 + "="},
        "transcription",
        ["transcription.requested.v1"],
    ),
    ("audio.speak", {"app": "{app}", "text": "At six."}, "speech", ["speech.requested.v1"]),
    (
        "audio.speak",
        {"app": "{app}", "conversation": "{talk}", "message": "{answered}"},
        "speech",
        ["speech.requested.v1"],
    ),
    ("message.stop", {"conversation": "{talk}", "message": "{asked}"}, "conversation", ["message.stop_requested.v1"]),
    (
        "message.rate",
        {"conversation": "{talk}", "message": "{answered}", "rating": "like"},
        "conversation",
        ["message.rated.v1"],
    ),
    (
        "message.suggest",
        {"conversation": "{talk}", "message": "{answered}"},
        "conversation",
        ["message.suggestions_requested.v1"],
    ),
    ("message.retry", {"conversation": "{talk}", "message": "{silent}"}, "conversation", ["message.retried.v1"]),
    ("dead_letter.retry", {"dead_letter": "{letter}"}, "dead_letter", ["dead_letter.retried.v1"]),
    ("dead_letter.discard", {"dead_letter": "{letter}"}, "dead_letter", ["dead_letter.discarded.v1"]),
    (
        "quarantine.discard",
        {"quarantine": quarantine_id("EVENTS", 3), "stream": "EVENTS", "sequence": 3},
        "quarantine",
        ["quarantine.discarded.v1"],
    ),
    ("conversation.rename", {"conversation": "{talk}", "name": "Times"}, "conversation", ["conversation.renamed.v1"]),
    (
        "conversation.request_name",
        {"conversation": "{slogan}"},
        "conversation",
        ["conversation.naming_requested.v1"],
    ),
    ("conversation.pin", {"conversation": "{talk}"}, "conversation", ["conversation.pinned.v1"]),
    ("conversation.delete", {"conversation": "{talk}"}, "conversation", ["conversation.deleted.v1"]),
    (
        "provider.register",
        {"name": "mill", "base_url": ADDRESS, "key": "k"},
        "provider",
        ["provider.registered.v2", "provider.check_requested.v1"],
    ),
    ("provider.check", {"provider": "lab", "model": "small"}, "provider", ["provider.check_requested.v1"]),
    (
        "provider.register",
        {"name": "lab", "base_url": ADDRESS, "key": "other"},
        "provider",
        ["provider.changed.v2", "provider.check_requested.v1"],
    ),
    (
        "provider.add_credential",
        {"provider": "lab", "name": "spare", "key": "k", "weight": 2},
        "provider",
        ["provider.credential_added.v1"],
    ),
    (
        "provider.remove_credential",
        {"provider": "lab", "name": "default"},
        "provider",
        ["provider.credential_removed.v1"],
    ),
    ("provider.remove", {"provider": "lab"}, "provider", ["provider.removed.v1"]),
    ("model.set", {**OF_LAB, "abilities": {"tools": True}}, "model", ["model.begun.v1", "model.set.v1"]),
    ("model.set", {**KNOWN, "rpm": 60}, "model", ["model.set.v1"]),
    ("model.remove", KNOWN, "model", ["model.removed.v1"]),
    ("model.set_default", {"type": "chat", **OF_LAB}, "default_model", ["default_model.chosen.v1"]),
    ("model.set_default", {"type": "rerank", **OF_LAB}, "default_model", ["default_model.changed.v1"]),
    ("model.remove_default", {"type": "rerank"}, "default_model", ["default_model.removed.v1"]),
    (
        "conversation.fork",
        {"conversation": "{talk}", "message": "{answered}"},
        "conversation",
        ["conversation.started.v1", "conversation.forked.v1"],
    ),
    ("replay.request", {"call": "{call}", "model": LAB, "configuration": 1}, "replay", ["replay.requested.v1"]),
    (
        "route.configure",
        {"name": "slow", "groups": [{"strategy": "cheapest", "members": [LAB]}], "reactions": {"timeout": "stop"}},
        "route",
        ["route.configured.v1"],
    ),
    ("route.configure", {"name": "fast", "groups": [{"members": [LAB]}], "wait_s": 9}, "route", ["route.changed.v1"]),
    ("route.remove", {"route": "fast"}, "route", ["route.removed.v1"]),
    (
        "plugin.install",
        {"plugin": "mask", "package": digest(NEWER), "content": "masked"},
        "plugin",
        ["plugin.replaced.v1"],
    ),
    ("plugin.remove", {"plugin": "mask"}, "plugin", ["plugin.removed.v1"]),
    ("plugin.enable", {"plugin": "mask", "content": False}, "plugin_use", ["plugin_use.enabled.v1"]),
    ("plugin.disable", {"plugin": "mask"}, "plugin_use", ["plugin_use.disabled.v1"]),
    ("plugin.clear", {"plugin": "mask"}, "plugin_storage", ["plugin_storage.cleared.v1"]),
    (
        "plugin.configure",
        {"plugin": "mask", "settings": {"mark": "x", "token": "t"}},
        "plugin_use",
        ["plugin_use.configured.v1"],
    ),
    (
        "toolset.register",
        {"name": "locks", "kind": "dataset", "dataset": {"dataset": "{dataset}"}},
        "toolset",
        ["toolset.registered.v1", "toolset.refresh_requested.v1"],
    ),
    (
        "toolset.register",
        {**MAIL, "timeout_s": 5.0},
        "toolset",
        ["toolset.changed.v1", "toolset.refresh_requested.v1"],
    ),
    ("toolset.refresh", {"toolset": "mail"}, "toolset", ["toolset.refresh_requested.v1"]),
    ("toolset.remove", {"toolset": "mail"}, "toolset", ["toolset.removed.v1"]),
    ("user_secret.set", {"toolset": "crm", "user": "ada", "secret": "t"}, "user_secret", ["user_secret.set.v1"]),
    ("user_secret.remove", {"toolset": "crm", "user": "ada"}, "user_secret", ["user_secret.removed.v1"]),
    ("tool_call.release", {"tool_call": "{held}"}, "tool_call", ["tool_call.released.v1"]),
    ("tool_call.release", {"tool_call": "{asking}", "answer": {"size": 3}}, "tool_call", ["tool_call.answered.v1"]),
    ("tool_call.refuse", {"tool_call": "{held}", "reason": "No."}, "tool_call", ["tool_call.refused.v1"]),
    ("tool_call.refuse", {"tool_call": "{asking}", "cancel": True}, "tool_call", ["tool_call.answered.v1"]),
    (
        "budget.set",
        {"name": "guide", "scope": "app", "subject": "{app}", "amount_usd": 9.5},
        "quota",
        ["quota.set.v2"],
    ),
    ("budget.set", {"name": "month", "scope": "tenant", "amount_usd": 9}, "quota", ["quota.set.v2"]),
    ("budget.remove", {"budget": "month"}, "quota", ["quota.removed.v1"]),
    ("quota.set", {"name": "calls", "unit": "calls", "period": "day", "limit": 9}, "quota", ["quota.set.v2"]),
    ("quota.remove", {"quota": "month"}, "quota", ["quota.removed.v1"]),
    ("quota.impose", {"name": "calls", "unit": "calls", "period": "day", "limit": 9}, "quota", ["quota.set.v2"]),
    ("quota.lift", {"quota": "most"}, "quota", ["quota.removed.v1"]),
    ("bus_login.open", {"name": "crm"}, "bus_login", ["bus_login.opened.v1"]),
    ("bus_login.open", {"name": "services"}, "bus_login", ["bus_login.issued.v1"]),
    ("bus_login.close", {"bus_login": "services"}, "bus_login", ["bus_login.closed.v1"]),
    ("sql_login.create", {"name": "bi", "verifier": VERIFIER}, "sql_login", ["sql_login.created.v1"]),
    ("sql_login.revoke", {"sql_login": "{login}"}, "sql_login", ["sql_login.revoked.v1"]),
    ("limits.set", {"quantity": "bytes", "period": "day", "most": 9}, "limits", ["limits.set.v1"]),
    ("limits.remove", {"quantity": "replays", "period": "day"}, "limits", ["limits.removed.v1"]),
    ("limits.impose", {"quantity": "replays", "period": "day", "most": 0}, "limits", ["limits.set.v1"]),
    ("limits.lift", {"quantity": "replays", "period": "day"}, "limits", ["limits.removed.v1"]),
    ("end_user.erase", {"user": "ada"}, "end_user", ["end_user.erased.v1"]),
    (
        "door.report_sign_in",
        {"credential": "token", "address": "192.0.2.7", "browser": "Firefox"},
        "door",
        ["door.signed_in.v1"],
    ),
    (
        "door.report_refusals",
        {"credential": "key", "address": "192.0.2.7", "count": 41},
        "door",
        ["door.refused.v1"],
    ),
    (
        "door.report_use",
        {"actor": "k_gate", "address": "192.0.2.7", "browser": "curl/8"},
        "door",
        ["door.used.v1"],
    ),
    ("trace.open", {"trace": "the-trace"}, "door", ["door.trace_opened.v1"]),
    ("trace.search", {"search": "/traces?q=tide"}, "door", ["door.traces_searched.v1"]),
    ("account.create", {"email": "Grace@example.com", "name": "Grace"}, "account", ["account.created.v1"]),
    ("account.create_service", {"name": "Billing"}, "account", ["account.created.v1"]),
    ("account.rename", {"account": "{owner}", "name": "Ada L."}, "account", ["account.renamed.v1"]),
    (
        "account.change_password",
        {"account": "{owner}", "password": PASSWORD},
        "account",
        ["account.password_changed.v1"],
    ),
    ("account.sign_out", {"account": "{owner}"}, "account", ["account.signed_out.v1"]),
    ("account.disable", {"account": "{other}"}, "account", ["account.disabled.v1"]),
    ("account.erase", {"account": "{other}"}, "account", ["account.erased.v1"]),
    ("tenant.create", {"tenant": "acme", "owner": "{other}", "name": "Acme"}, "tenant", ["tenant.created.v1"]),
    ("tenant.rename", {"tenant": "{company}", "name": "Other"}, "tenant", ["tenant.renamed.v1"]),
    (
        "tenant.add_member",
        {"tenant": "{company}", "account": "{other}", "role": "editor"},
        "tenant",
        ["tenant.member_added.v1"],
    ),
    (
        "tenant.set_role",
        {"tenant": "{company}", "account": "{member}", "role": "viewer"},
        "tenant",
        ["tenant.role_set.v1"],
    ),
    ("tenant.remove_member", {"tenant": "{company}", "account": "{member}"}, "tenant", ["tenant.member_removed.v1"]),
    ("tenant.transfer", {"tenant": "{company}", "account": "{member}"}, "tenant", ["tenant.transferred.v1"]),
    (
        "tenant.invite",
        {"tenant": "{company}", "digest": "1" * 64, "role": "member", "ends_at": "2999-01-01T00:00:00Z"},
        "tenant",
        ["tenant.invited.v1"],
    ),
    (
        "tenant.accept",
        {"tenant": "{company}", "digest": "0" * 64, "account": "{other}"},
        "tenant",
        ["tenant.member_added.v1"],
    ),
    ("tenant.withdraw", {"tenant": "{company}", "digest": "0" * 64}, "tenant", ["tenant.invitation_withdrawn.v1"]),
    ("tenant.archive", {"tenant": "{company}"}, "tenant", ["tenant.archived.v1"]),
    (
        "api_key.create",
        {"name": "Site", "digest": "2" * 64, "hint": "a1B2", "permissions": ["chat"], "apps": ["{app}"]},
        "api_key",
        ["api_key.created.v1"],
    ),
    ("api_key.rename", {"api_key": "{key}", "name": "Other"}, "api_key", ["api_key.renamed.v1"]),
    (
        "api_key.replace",
        {"api_key": "{key}", "digest": "2" * 64, "hint": "a1B2"},
        "api_key",
        ["api_key.replaced.v1"],
    ),
    ("api_key.revoke", {"api_key": "{key}"}, "api_key", ["api_key.revoked.v1"]),
]


def filled(value: Any, world: World) -> Any:
    """The fields, with the ids of the world for `{what}`."""
    if isinstance(value, dict):
        return {name: filled(inner, world) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, world) for inner in value]
    return value.format(**vars(world)) if isinstance(value, str) else value


TAKES_BACK = {
    *("document.enable", "document.unarchive", "segment.enable", "account.enable", "tenant.unarchive"),
    *("conversation.unpin", "message.unsave"),
}
"""Commands that there is something to do for only after another."""


def test_every_command_is_tried() -> None:
    assert {name for name, *_ in ACCEPTED} | TAKES_BACK == set(ROUTES)


def test_every_permission_is_one_that_commands_need() -> None:
    assert {route.permission for route in ROUTES.values()} == set(PERMISSIONS)
    assert set(PERMISSIONS) == set(get_args(Permission))


def test_payloads_with_secrets_or_words_of_people_are_private() -> None:
    private = {name for name, route in ROUTES.items() if route.private}
    wards = (
        "annotation.",
        "audio.",
        "provider.",
        "message.",
        "conversation.",
        "end_user.",
        "limits.",
        "quota.",
        "door.",
        "trace.",
        "plugin.",
        "toolset.",
        "tool_call.",
        "user_secret.",
        "run.",
    )
    texts = {"document.upload", "document.rename", "document.set_metadata", "segment.add", "segment.edit"}
    of_accounts = {"account.create", "account.rename", "account.change_password"}
    others = {"dataset.test", "replay.request", "sql_login.create", "budget.set", "workflow.save"} | texts | of_accounts
    assert private == {name for name in ROUTES if name.startswith(wards)} | others
    assert [is_private(name) for name in ("Provider.register", "message", "app.paint")] == [True, True, True]


def test_a_person_is_named_by_the_user_or_by_what_holds_their_words() -> None:
    persons = {name: route.person for name, route in ROUTES.items() if route.person}
    assert persons == {
        "annotation.create": "conversation",
        "dataset.test": "user",
        "message.send": "user",
        "audio.transcribe": "user",
        "audio.speak": "user",
        "conversation.fork": "conversation",
        "message.more_like_this": "conversation",
        "document.upload": "user",
        "user_secret.set": "user",
        "user_secret.remove": "user",
        "replay.request": "call",
        "run.start": "user",
        "run.try": "user",
        "run.retry": "source",
        "run.fork": "source",
        **dict.fromkeys(
            ("door.report_sign_in", "door.report_refusals", "door.report_use", "trace.open", "trace.search"), "account"
        ),
        "account.create": "email",
    }
    for name, field in persons.items():
        assert hasattr(ROUTES[name].command, field) or field in ROUTES[name].command.model_fields
        assert field in ("user", "email", "account") or field in ROUTES[name].references


async def test_what_was_taken_away_comes_back(desk: Desk, world: World) -> None:
    document, segment = {"document": world.ready}, {"document": world.ready, "segment": world.segment}
    pairs: list[tuple[str, str, dict[str, Any]]] = [
        ("document.disable", "document.enable", document),
        ("document.archive", "document.unarchive", document),
        ("segment.disable", "segment.enable", segment),
        ("account.disable", "account.enable", {"account": world.other}),
        ("tenant.archive", "tenant.unarchive", {"tenant": world.company}),
        ("conversation.pin", "conversation.unpin", {"conversation": world.talk}),
        ("message.save", "message.unsave", {"conversation": world.talk, "message": world.answered}),
    ]
    before = len(await desk.types("document", world.ready))
    for there, back, fields in pairs:
        await desk.done(there, **fields)
        await desk.done(back, **fields)
    assert (await desk.types("document", world.ready))[before:] == [
        *("document.disabled.v1", "document.enabled.v1", "document.archived.v1", "document.unarchived.v1"),
        *("segment.disabled.v1", "segment.enabled.v1"),
    ]


@pytest.mark.parametrize(("name", "fields", "noun", "types"), ACCEPTED)
async def test_a_command_is_accepted_once(
    desk: Desk, world: World, name: str, fields: dict[str, Any], noun: str, types: list[str]
) -> None:
    fields, id = filled(fields, world), new_id()
    outcome = await desk.send(name, fields, id=id)
    assert (outcome.status, outcome.code, outcome.message) == ("accepted", None, None)
    target = outcome.ids[noun]
    commits = await desk.commits(noun, target)
    assert [event.TOPIC for event in commits[-1].events] == types
    assert (outcome.position, outcome.version) == (commits[-1].position, commits[-1].events[-1].originator_version)
    assert {event.timestamp for event in commits[-1].events} == {outcome.at}

    named = {
        "annotation",
        "app",
        "dataset",
        "document",
        "segment",
        "tag",
        "conversation",
        "message",
        "provider",
        "dead_letter",
        "quarantine",
        "sql_login",
        "trace",
        "tenant",
        "api_key",
        "tool_call",
    } & set(fields)
    expected = {what: fields[what] for what in named & {noun, name.partition(".")[0]}}
    if noun in ("provider", "route", "bus_login", "toolset"):
        expected = {noun: fields.get(noun) or fields["name"]}
    elif noun in ("workflow", "run"):
        expected = {noun: target}
    elif noun in ("plugin", "plugin_storage", "plugin_use"):
        expected = {"plugin": "mask", noun: "mask"}
    elif noun == "quota":
        expected = {noun: "operator" if name in ("quota.impose", "quota.lift") else "tenant"}
        if name.startswith("budget."):
            expected["budget"] = fields.get("name") or fields["budget"]
    elif name in ("conversation.fork", "message.more_like_this"):
        expected = {}
    elif noun == "tags":
        expected |= {noun: fields.get("kind", "app")}
    elif noun == "limits":
        expected = {noun: "tenant" if name in ("limits.set", "limits.remove") else "operator"}
    elif noun in ("end_user", "account", "user_secret"):
        expected = {noun: target}
    elif noun == "model":
        expected = {noun: model_id("lab", fields["model"])}
    elif noun == "default_model":
        expected = {noun: fields["type"], "model": fields.get("model", id)}
    given = ROUTES[name].gives or name.partition(".")[0]
    if ROUTES[name].gives:
        expected.pop(given, None)
    assert outcome.ids == {given: id, noun: id} | expected

    caused = commits[-1].metadata
    assert (caused.causation, caused.correlation, caused.actor, caused.tenant) == (id, id, ANON, tenant_of(noun, desk))

    assert await desk.send(name, fields, id=id) == outcome
    assert await Desk(desk.server, desk.tenant).send(name, {}, id=id) == outcome
    assert await desk.outcomes.get(outcome.metadata.tenant, id) == outcome
    assert len(await desk.commits(noun, target)) == len(commits)


UNKNOWN: list[tuple[str, dict[str, Any], str]] = [
    ("app.configure", {"app": "{app}"}, "app"),
    ("app.configure", {"app": "{app}", "datasets": ["{dataset}"]}, "datasets.0"),
    ("app.configure", {"app": "{app}", "model": {"provider": "lab", "name": "small"}}, "model.provider"),
    ("app.delete", {"app": "{app}"}, "app"),
    ("app.rename", {"app": "{app}", "name": "x"}, "app"),
    ("app.set_icon", {"app": "{app}", "icon": None}, "app"),
    ("app.set_site", {"app": "{app}"}, "app"),
    ("app.set_triggers", {"app": "{app}", "enabled": True}, "app"),
    ("workflow.save", {"app": "{app}", "document": {}}, "app"),
    ("run.start", {"app": "{app}"}, "app"),
    ("run.try", {"app": "{app}"}, "app"),
    ("tag.bind", {"tag": "{label}", "app": "{app}"}, "app"),
    ("tag.unbind", {"tag": "{label}", "dataset": "{dataset}"}, "dataset"),
    ("app.set_annotation_reply", {"app": "{app}", "enabled": False}, "app"),
    ("annotation.create", {"app": "{app}", "question": "?", "answer": "!"}, "app"),
    ("annotation.create", {"app": "{app}", "conversation": "{talk}", "message": "{answered}"}, "conversation"),
    ("annotation.edit", {"annotation": "{note}", "answer": "!"}, "annotation"),
    ("annotation.remove", {"annotation": "{note}"}, "annotation"),
    ("message.suggest", {"conversation": "{talk}", "message": "{answered}"}, "conversation"),
    ("dataset.configure", {"dataset": "{dataset}", "embedding_model": "a-model"}, "dataset"),
    ("dataset.delete", {"dataset": "{dataset}"}, "dataset"),
    ("document.upload", {"dataset": "{dataset}", "name": "a", "text": "x"}, "dataset"),
    ("document.delete", {"document": "{document}"}, "document"),
    ("document.retry", {"document": "{failed}"}, "document"),
    ("document.reprocess", {"document": "{document}"}, "document"),
    ("dataset.reprocess", {"dataset": "{dataset}"}, "dataset"),
    ("document.disable", {"document": "{document}"}, "document"),
    ("document.set_metadata", {"document": "{document}", "metadata": {"year": 1}}, "document"),
    ("segment.add", {"document": "{document}", "content": "x"}, "document"),
    ("dataset.remove_metadata_field", {"dataset": "{dataset}", "name": "year"}, "dataset"),
    ("message.send", {"app": "{app}", "query": "?"}, "app"),
    ("message.send", {"app": "{app}", "query": "?", "conversation": "{talk}"}, "conversation"),
    ("message.stop", {"conversation": "{talk}", "message": "{asked}"}, "conversation"),
    ("message.rate", {"conversation": "{talk}", "message": "{asked}", "rating": None}, "conversation"),
    ("message.retry", {"conversation": "{talk}", "message": "{silent}"}, "conversation"),
    ("message.regenerate", {"conversation": "{talk}", "message": "{asked}"}, "conversation"),
    ("message.more_like_this", {"conversation": "{slogan}", "message": "{slogan}"}, "conversation"),
    ("message.save", {"conversation": "{talk}", "message": "{answered}"}, "conversation"),
    ("message.unsave", {"conversation": "{talk}", "message": "{answered}"}, "conversation"),
    ("conversation.pin", {"conversation": "{talk}"}, "conversation"),
    ("conversation.unpin", {"conversation": "{talk}"}, "conversation"),
    ("conversation.request_name", {"conversation": "{slogan}"}, "conversation"),
    ("conversation.rename", {"conversation": "{talk}", "name": "x"}, "conversation"),
    ("conversation.delete", {"conversation": "{talk}"}, "conversation"),
    ("provider.add_credential", {"provider": "lab", "name": "spare", "key": "k"}, "provider"),
    ("provider.remove_credential", {"provider": "lab", "name": "default"}, "provider"),
    ("provider.check", {"provider": "lab"}, "provider"),
    ("provider.remove", {"provider": "lab"}, "provider"),
    ("model.set", OF_LAB, "provider"),
    ("model.set_default", {"type": "chat", **OF_LAB}, "provider"),
    ("conversation.fork", {"conversation": "{talk}", "message": "{answered}"}, "conversation"),
    ("replay.request", {"call": "{call}", "model": LAB}, "model.provider"),
    ("route.configure", {"name": "fast", "groups": [{"members": [LAB]}]}, "groups.0.members.0.provider"),
    ("route.remove", {"route": "fast"}, "route"),
    ("budget.remove", {"budget": "month"}, "budget"),
    ("bus_login.close", {"bus_login": "services"}, "bus_login"),
    ("sql_login.revoke", {"sql_login": "{login}"}, "sql_login"),
]


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("run.retry", {"source": new_id()}, "source"),
        ("run.fork", {"source": new_id()}, "source"),
        ("run.stop", {"run": new_id()}, "run"),
        ("run.answer", {"run": new_id(), "step": "ask", "action": "yes"}, "run"),
    ],
)
async def test_a_run_that_was_never_made_cannot_be_named(
    desk: Desk, name: str, fields: dict[str, Any], field: str
) -> None:
    assert await desk.fails(name, fields) == ("not_found", field)


def replaced(value: Any, path: list[str], unknown: str) -> Any:
    """The fields, with another value at the path."""
    if not path:
        return unknown
    if isinstance(value, list):
        return [
            replaced(inner, path[1:], unknown) if str(place) == path[0] else inner for place, inner in enumerate(value)
        ]
    return {name: replaced(inner, path[1:], unknown) if name == path[0] else inner for name, inner in value.items()}


@pytest.mark.parametrize(("name", "fields", "field"), UNKNOWN)
async def test_what_was_never_made_cannot_be_named(
    desk: Desk, world: World, name: str, fields: dict[str, Any], field: str
) -> None:
    unknown = "nobody" if "provider" in field else new_id()
    fields = replaced(filled(fields, world), field.split("."), unknown)
    assert await desk.fails(name, fields) == ("not_found", field)


@pytest.mark.parametrize(("name", "fields", "field"), UNKNOWN)
async def test_what_was_deleted_cannot_be_named(
    desk: Desk, world: World, name: str, fields: dict[str, Any], field: str
) -> None:
    last = field.split(".")[-1]
    named = {
        "provider": ("remove", "lab"),
        "route": ("remove", "fast"),
        "budget": ("remove", "month"),
        "bus_login": ("close", "services"),
    }
    if last in named:
        verb, handle = named[last]
        await desk.done(f"{last}.{verb}", **{last: handle})
    elif last == "document":
        await desk.done("document.delete", document=filled(fields["document"], world))
    elif last == "sql_login":
        await desk.done("sql_login.revoke", sql_login=world.login)
    elif last == "annotation":
        await desk.done("annotation.remove", annotation=world.note)
    else:
        noun = "dataset" if last == "0" else last
        deleted = filled(fields["conversation"], world) if noun == "conversation" else getattr(world, noun)
        await desk.done(f"{noun}.delete", **{noun: deleted})
    assert await desk.fails(name, filled(fields, world)) == ("not_found", field)


@pytest.mark.parametrize(("name", "fields", "field"), UNKNOWN)
async def test_what_another_tenant_has_cannot_be_named(
    desk: Desk, world: World, name: str, fields: dict[str, Any], field: str
) -> None:
    other = Desk(desk.server, f"{desk.tenant}x")
    code, named = await other.fails(name, filled(fields, world))
    assert code == "not_found"
    nouns = {
        "annotation",
        "app",
        "budget",
        "bus_login",
        "call",
        "conversation",
        "dataset",
        "document",
        "provider",
        "route",
        "sql_login",
    }
    assert named in {*nouns, "datasets.0", "model.provider", "groups.0.members.0.provider"}


async def test_a_letter_is_its_tenants(desk: Desk, world: World) -> None:
    other = Desk(desk.server, f"{desk.tenant}x")
    for name in ("dead_letter.retry", "dead_letter.discard"):
        assert await desk.fails(name, dead_letter=new_id()) == ("not_found", "dead_letter")
        assert await other.fails(name, dead_letter=world.letter) == ("not_found", "dead_letter")


async def test_a_document_is_uploaded_by_its_text(desk: Desk, world: World) -> None:
    text = "水门六点开。\nUnd abends zu."
    id = await desk.done("document.upload", dataset=world.dataset, name="zeiten.txt", text=text, metadata={"year": 1})
    [uploaded] = await desk.events("document", id)
    assert isinstance(uploaded, Document.Uploaded)
    data = text.encode()
    assert (uploaded.digest, uploaded.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (uploaded.name, uploaded.media_type, uploaded.metadata) == ("zeiten.txt", "text/plain", {"year": 1})
    assert await desk.blobs.get(desk.tenant, uploaded.digest) == data


async def test_a_document_is_uploaded_by_its_digest(desk: Desk, world: World) -> None:
    digest = await desk.blobs.put(desk.tenant, b"%PDF-1.7")
    id = await desk.done("document.upload", dataset=world.dataset, name="rules.pdf", digest=digest)
    [uploaded] = await desk.events("document", id)
    assert isinstance(uploaded, Document.Uploaded)
    assert (uploaded.digest, uploaded.size, uploaded.media_type) == (digest, 8, "application/pdf")


async def test_the_bytes_must_be_there_first(desk: Desk, world: World) -> None:
    digest = await Desk(desk.server, "other").blobs.put("other", b"theirs")
    fields = {"dataset": world.dataset, "name": "rules.pdf"}
    assert await desk.fails("document.upload", digest="0" * 64, **fields) == ("not_found", "digest")
    assert await desk.fails("document.upload", digest=digest, **fields) == ("not_found", "digest")


@pytest.mark.parametrize(
    ("given", "kept", "media_type"),
    [
        ("notes.md", "notes.md", "text/markdown"),
        ("/etc/passwd", "passwd", "text/plain"),
        ("../../up.html", "up.html", "text/html"),
        ("C:\\Users\\ada\\a.pdf", "a.pdf", "application/pdf"),
        ("قواعد 水门.txt", "قواعد 水门.txt", "text/plain"),
        (".hidden", ".hidden", "text/plain"),
    ],
)
async def test_only_the_last_part_of_a_file_name_is_kept(
    desk: Desk, world: World, given: str, kept: str, media_type: str
) -> None:
    id = await desk.done("document.upload", dataset=world.dataset, name=given, text="x")
    [uploaded] = await desk.events("document", id)
    assert isinstance(uploaded, Document.Uploaded)
    assert (uploaded.name, uploaded.media_type) == (kept, media_type)


async def test_a_media_type_that_is_given_is_taken(desk: Desk, world: World) -> None:
    id = await desk.done("document.upload", dataset=world.dataset, name="a.bin", text="x", media_type="text/html")
    [uploaded] = await desk.events("document", id)
    assert isinstance(uploaded, Document.Uploaded)
    assert uploaded.media_type == "text/html"


@pytest.mark.parametrize("name", ["/", "..", "a/..", "\\"])
async def test_a_name_must_end_in_a_file_name(desk: Desk, world: World, name: str) -> None:
    assert await desk.fails("document.upload", dataset=world.dataset, name=name, text="x") == ("invalid", "name")


async def test_a_first_message_starts_a_conversation_with_its_own_id(desk: Desk, world: World) -> None:
    query = "  When does the \n sluice open, and who has the key to the house next to it at night?"
    outcome = await desk.send("message.send", app=world.app, query=query, inputs={"tone": "stern"}, user="bob")
    assert outcome.ids == {"message": outcome.command, "conversation": outcome.command}
    started, asked = await desk.events("conversation", outcome.command)
    assert isinstance(started, Conversation.Started)
    assert isinstance(asked, Conversation.Asked)
    assert (started.app, started.user) == (world.app, "bob")
    assert started.name == "When does the sluice open, and who has the key to the house…"
    assert (asked.query, asked.inputs, asked.configuration) == (query, {"tone": "stern"}, 1)


async def test_a_message_is_asked_of_the_newest_configuration(desk: Desk, world: World) -> None:
    await desk.done("app.configure", app=world.app)
    outcome = await desk.send("message.send", app=world.app, query="And now?", conversation=world.talk)
    [*_, asked] = await desk.events("conversation", world.talk)
    assert isinstance(asked, Conversation.Asked)
    assert (asked.message, asked.configuration, asked.parent) == (outcome.command, 2, world.silent)


async def test_the_inputs_are_the_apps(desk: Desk, world: World) -> None:
    fields: dict[str, Any] = {"app": world.app, "query": "When?"}
    assert await desk.fails("message.send", inputs={"city": "x"}, **fields) == ("unknown_input", "inputs.city")
    await desk.done("app.configure", app=world.app, variables=[{"name": "city", "required": True}])
    assert await desk.fails("message.send", **fields) == ("missing_input", "inputs.city")
    await desk.done("message.send", inputs={"city": "Delft"}, **fields)


async def test_an_app_answers_once_it_is_configured(desk: Desk) -> None:
    app = await desk.done("app.create", name="Bare")
    assert await desk.fails("message.send", app=app, query="When?") == ("not_configured", "app")


async def test_a_conversation_belongs_to_one_app_and_one_user(desk: Desk, world: World) -> None:
    other = await desk.done("app.create", name="Other")
    await desk.done("app.configure", app=other)
    fields = {"query": "When?", "conversation": world.talk}
    assert await desk.fails("message.send", app=other, **fields) == ("wrong_app", "app")
    assert await desk.fails("message.send", app=world.app, user="bob", **fields) == ("wrong_user", "user")


async def test_messages_are_the_conversations(desk: Desk, world: World) -> None:
    fields = {"conversation": world.talk, "message": new_id()}
    assert await desk.fails("message.stop", **fields) == ("not_found", "message")
    assert await desk.fails("message.retry", **fields) == ("not_found", "message")
    assert await desk.fails("message.rate", rating="like", **fields) == ("not_found", "message")


async def test_the_state_of_a_message_is_minded(desk: Desk, world: World) -> None:
    answered = {"conversation": world.talk, "message": world.answered}
    asked = {"conversation": world.talk, "message": world.asked}
    assert await desk.fails("message.stop", **answered) == ("already_ended", "message")
    assert await desk.fails("message.rate", rating="like", **asked) == ("not_answered", "message")
    assert await desk.fails("message.retry", **answered) == ("not_failed", "message")


async def test_only_a_failed_document_is_tried_again(desk: Desk, world: World) -> None:
    assert await desk.fails("document.retry", document=world.document) == ("not_failed", "document")


async def test_values_must_be_of_the_types_that_the_dataset_defines(desk: Desk, world: World) -> None:
    wrong: dict[str, Any] = {"document": world.ready, "metadata": {"author": "Ada", "year": "2026"}}
    assert await desk.fails("document.set_metadata", **wrong) == ("wrong_type", "metadata.year")
    outcome = await desk.send("document.set_metadata", **wrong)
    assert outcome.message == "Must be a number: the field is a number."
    upload = {"dataset": world.dataset, "name": "a.txt", "text": "x", "metadata": {"year": True}}
    assert await desk.fails("document.upload", **upload) == ("wrong_type", "metadata.year")
    await desk.done("document.set_metadata", document=world.ready, metadata={"year": None})
    await desk.done("dataset.add_metadata_field", dataset=world.dataset, name="day", type="time")
    for value in ("2026-05-04", "2026-05-04T12:30:00+02:00", 1_777_890_600):
        await desk.done("document.set_metadata", document=world.ready, metadata={"day": value})
    for value in ("yesterday", True):
        wrong = {"document": world.ready, "metadata": {"day": value}}
        assert await desk.fails("document.set_metadata", **wrong) == ("wrong_type", "metadata.day")
    known = {"dataset": world.dataset, "name": "day", "type": "string"}
    assert await desk.fails("dataset.add_metadata_field", **known) == ("already_defined", "name")
    other = {"dataset": world.dataset, "name": "day", "new_name": "year"}
    assert await desk.fails("dataset.rename_metadata_field", **other) == ("already_defined", "new_name")
    unknown = {"dataset": world.dataset, "name": "colour"}
    assert await desk.fails("dataset.remove_metadata_field", **unknown) == ("not_found", "name")


async def test_what_is_written_into_a_segment_is_bounded(desk: Desk, world: World) -> None:
    segment = {"document": world.ready, "segment": world.segment}
    assert await desk.fails("segment.edit", **segment) == ("invalid", "content")
    assert await desk.fails("segment.edit", content=" ", **segment) == ("invalid", "content")
    assert await desk.fails("segment.edit", content="ö" * 40_000, **segment) == ("invalid", "content")
    assert await desk.fails("segment.add", document=world.document, content="x") == ("being_processed", "document")
    assert await desk.fails("segment.disable", document=world.ready, segment=new_id()) == ("not_found", "segment")


async def test_a_command_that_changes_nothing_is_accepted(desk: Desk, world: World) -> None:
    rating = {"conversation": world.talk, "message": world.answered, "rating": "like"}
    await desk.done("message.rate", **rating)
    before = await desk.commits("conversation", world.talk)
    outcome = await desk.send("message.rate", **rating)
    assert (outcome.status, outcome.position) == ("accepted", before[-1].position)
    assert len(await desk.commits("conversation", world.talk)) == len(before)


async def test_a_removed_provider_can_be_registered_again(desk: Desk) -> None:
    await desk.done("provider.register", name="lab", base_url=ADDRESS, key="first")
    await desk.done("provider.remove", provider="lab")
    await desk.done("provider.register", name="lab", base_url="http://10.0.0.7:8000", key="second")
    provider = await desk.fold("provider", "lab")
    assert isinstance(provider, Provider)
    assert (provider.deleted, provider.base_url) == (False, "http://10.0.0.7:8000")
    assert desk.vault.open(desk.tenant, provider.credentials[0]["sealed_key"]) == "second"


async def test_a_provider_has_several_keys_of_which_only_hints_are_shown(desk: Desk) -> None:
    await desk.done("provider.register", name="lab", base_url=ADDRESS, kind="ollama")
    assert await desk.fails("provider.add_credential", provider="lab", name="a", key="") == ("invalid", "key")
    assert await desk.fails("provider.add_credential", provider="gone", name="a", key="k") == ("not_found", "provider")
    await desk.done("provider.add_credential", provider="lab", name="a", key="0123456789abcdef", weight=2)
    await desk.done("provider.add_credential", provider="lab", name="b", key="0123456789abcde")
    provider = await desk.fold("provider", "lab")
    assert isinstance(provider, Provider)
    assert provider.kind == "ollama"
    found = [(each["name"], each["weight"], each["hint"]) for each in provider.credentials]
    assert found == [("a", 2, "cdef"), ("b", 1, "")]
    assert desk.vault.open(desk.tenant, provider.credentials[1]["sealed_key"]) == "0123456789abcde"
    await desk.done("provider.remove_credential", provider="lab", name="a")
    assert await desk.fails("provider.remove_credential", provider="lab", name="a") == ("not_found", "name")


async def test_the_catalogue_has_entries_of_registered_providers(desk: Desk, world: World) -> None:
    gone = {"provider": "gone", "model": "small"}
    assert await desk.fails("model.set", **gone) == ("not_found", "provider")
    assert await desk.fails("model.set", **KNOWN, abilities={"flying": True}) == ("invalid", "abilities.flying.[key]")
    assert await desk.fails("model.set", **KNOWN, prices={"input": 1.0}) == ("invalid", "prices.output")
    assert await desk.fails("model.remove", **gone) == ("not_found", "model")
    assert await desk.fails("model.set_default", type="chat", **gone) == ("not_found", "provider")
    builtin = {"provider": "builtin", "model": "gpt"}
    assert await desk.fails("model.set_default", type="chat", **builtin) == ("invalid", "model")
    assert await desk.fails("model.remove_default", type="chat") == ("not_found", "type")
    prices = {"input": 0.5, "output": 1.5}
    await desk.done("model.set", **KNOWN, prices=prices)
    known = await desk.fold("model", model_id("lab", "known"))
    assert isinstance(known, Model)
    assert known.facts["prices"] == {**prices, "cached": None, "cache_write": None}


async def test_an_app_that_names_no_model_gets_the_default_one(desk: Desk, world: World) -> None:
    async def model(**fields: Any) -> tuple[str, str]:
        await desk.done("app.configure", app=world.app, **fields)
        app = await desk.fold("app", world.app)
        assert isinstance(app, App)
        assert app.configuration
        return app.configuration["model"]["provider"], app.configuration["model"]["name"]

    assert await model(prompt="1") == ("builtin", "extractive")
    await desk.done("model.set_default", type="chat", **KNOWN)
    assert await model(prompt="2") == ("lab", "known")
    assert await model(prompt="3", model={"provider": "builtin"}) == ("builtin", "extractive")
    await desk.done("model.remove_default", type="chat")
    assert await model(prompt="4") == ("builtin", "extractive")


async def test_a_reranker_that_is_not_served_or_not_registered(desk: Desk, memory: Memory, world: World) -> None:
    async def fails(at: Desk, **rerank: Any) -> tuple[str | None, str | None]:
        return await at.fails("app.configure", app=world.app, retrieval={"rerank": rerank})

    assert await fails(desk, model="another") == ("unknown_model", "retrieval.rerank.model")
    assert await fails(desk, provider="gone", model="tiny") == ("not_found", "retrieval.rerank.provider")
    bare = Desk(memory, desk.tenant, rerank_model="")
    for model in ({}, {"model": "a-reranker"}):
        assert await fails(bare, **model) == ("unknown_model", "retrieval.rerank.provider")
    for rerank in ({}, {"model": "a-reranker", "top_n": 9}):
        await desk.done("app.configure", app=world.app, retrieval={"rerank": rerank})
    await bare.done("app.configure", app=world.app, retrieval={"rerank": None})
    app = await desk.fold("app", world.app)
    assert isinstance(app, App)
    reranks = [each["retrieval"]["rerank"] for each in app.configurations.values()][-3:]
    assert reranks == [
        {"provider": "builtin", "model": None, "top_n": 50},
        {"provider": "builtin", "model": "a-reranker", "top_n": 9},
        None,
    ]


async def test_an_embedding_model_that_no_worker_serves(desk: Desk, world: World) -> None:
    fields = {"dataset": world.dataset, "embedding_model": "yet-another"}
    assert await desk.fails("dataset.configure", **fields) == ("unknown_model", "embedding_model")
    outcome = await desk.send("dataset.configure", **fields)
    assert outcome.message
    assert "a-model, another-model" in outcome.message
    assert "HEADRACE_" not in outcome.message


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({}, "embedding_model"),
        ({"segmentation": {"mode": "words"}}, "segmentation.mode"),
        ({"segmentation": {"mode": "custom", "max_tokens": 255}}, "segmentation.max_tokens"),
        ({"segmentation": {"mode": "custom", "cleanup": ["all"]}}, "segmentation.cleanup.0"),
        ({"segmentation": {"mode": "custom", "parent": {"kind": "paragraph"}}}, "segmentation"),
        ({"segmentation": {"mode": "custom", "max_tokens": 100, "overlap": 51}}, "segmentation"),
    ],
)
async def test_rules_that_cannot_be(desk: Desk, world: World, rules: dict[str, Any], field: str) -> None:
    assert await desk.fails("dataset.configure", dataset=world.dataset, **rules) == ("invalid", field)


async def test_rules_of_its_own_or_those_of_its_dataset(desk: Desk, world: World) -> None:
    fields = {"document": world.ready, "segmentation": {"mode": "automatic"}, "inherit": True}
    assert await desk.fails("document.reprocess", **fields) == ("invalid", "inherit")


async def test_rules_are_recorded_as_a_whole(desk: Desk, world: World) -> None:
    await desk.send("dataset.configure", dataset=world.dataset, segmentation={"mode": "parent_child"})
    *_, chosen = await desk.events("dataset", world.dataset)
    assert isinstance(chosen, Dataset.SegmentationChosen)
    assert chosen.segmentation == Segmentation(mode="parent_child").plain()


async def test_a_replay_is_as_recorded_where_the_command_does_not_say_otherwise(desk: Desk, world: World) -> None:
    [asked] = await desk.events("replay", await desk.done("replay.request", call=world.call))
    assert isinstance(asked, Replay.Requested)
    assert (asked.provider, asked.model, asked.max_tokens) == ("builtin", "extractive", 64)
    assert (asked.parameters, asked.app, asked.configuration) == ({"temperature": 0.2}, None, None)
    other = {"model": LAB, "parameters": {}, "max_tokens": 7, "configuration": 1}
    [asked] = await desk.events("replay", await desk.done("replay.request", call=world.call, **other))
    assert isinstance(asked, Replay.Requested)
    assert (asked.provider, asked.model, asked.max_tokens) == ("lab", "small", 7)
    assert (asked.parameters, asked.app, asked.configuration) == ({}, world.app, 1)


async def test_what_cannot_be_replayed(desk: Desk, world: World) -> None:
    embedding = await desk.called("embedding", request={"texts": 1, "tokens": 9})
    erased = await desk.called(request={})
    bare = await desk.called()
    assert await desk.fails("replay.request", call=new_id()) == ("not_found", "call")
    assert await desk.fails("replay.request", call=embedding) == ("not_a_chat", "call")
    assert await desk.fails("replay.request", call=erased) == ("erased", "call")
    assert await desk.fails("replay.request", call=bare, configuration=1) == ("unknown_prompt", "configuration")
    assert await desk.fails("replay.request", call=world.call, configuration=2) == ("not_found", "configuration")


async def test_a_fork_keeps_the_app_and_the_user(desk: Desk, world: World) -> None:
    fields = {"conversation": world.talk, "message": world.answered}
    fork = await desk.done("conversation.fork", name="What if", **fields)
    started, forked = await desk.events("conversation", fork)
    assert isinstance(started, Conversation.Started)
    assert isinstance(forked, Conversation.Forked)
    assert (started.app, started.user, started.name) == (world.app, "anonymous", "What if")
    assert [(copied["query"], copied["answer"]) for copied in forked.messages] == [("When?", "At six.")]
    asked = await desk.send("message.send", app=world.app, query="Why?", conversation=fork)
    talk = await desk.fold("conversation", fork)
    assert isinstance(talk, Conversation)
    assert list(talk.history(asked.command)) == [world.answered]


async def test_only_an_answered_message_is_forked_after(desk: Desk, world: World) -> None:
    for message, code in ((world.asked, "not_answered"), (world.silent, "not_answered"), (new_id(), "not_found")):
        fields = {"conversation": world.talk, "message": message}
        assert await desk.fails("conversation.fork", **fields) == (code, "message")


async def test_a_budget_is_of_something(desk: Desk, world: World) -> None:
    fields: dict[str, Any] = {"name": "some", "amount_usd": 1}
    for scope, subject in (("tenant", "x"), ("app", ""), ("app", "x.>"), ("user", " "), ("model", "")):
        assert await desk.fails("budget.set", scope=scope, subject=subject, **fields) == ("invalid", "subject")
    assert await desk.fails("budget.set", scope="app", subject=new_id(), **fields) == ("not_found", "subject")
    assert await desk.fails("budget.set", scope="tenant", name="some", amount_usd=0) == ("invalid", "amount_usd")


async def test_the_same_embedding_model_again_changes_nothing(desk: Desk, world: World) -> None:
    fields = {"dataset": world.dataset, "embedding_model": "a-model"}
    first, second = [await desk.send("dataset.configure", **fields) for _ in range(2)]
    assert first.version == second.version
    assert (await desk.types("dataset", world.dataset)).count("dataset.configured.v2") == 1


# --- messages that branch, repeat and stand for themselves ---------------------------------------------------


async def test_a_message_asks_something(desk: Desk, world: World) -> None:
    for fields in ({}, {"query": " "}, {"query": "\n", "inputs": {"tone": " "}}):
        assert await desk.fails("message.send", app=world.app, **fields) == ("invalid", "query")
        assert await desk.fails("message.send", app=world.slogans, **fields) == ("invalid", "query")
    assert await desk.fails("message.send", app=world.app, inputs={"tone": "calm"}) == ("invalid", "query")
    fields = {"app": world.app, "query": "?", "parent_message": world.asked}
    assert await desk.fails("message.send", **fields) == ("invalid", "parent_message")


async def test_a_message_of_a_completion_app_is_a_conversation_of_its_own(desk: Desk, world: World) -> None:
    outcome = await desk.send("message.send", app=world.slogans, inputs={"topic": "the sluice"}, query=" ")
    assert outcome.ids == {"message": outcome.command, "conversation": outcome.command}
    started, asked = await desk.events("conversation", outcome.command)
    assert isinstance(started, Conversation.Started)
    assert isinstance(asked, Conversation.Asked)
    assert (started.name, asked.query, asked.inputs) == ("the sluice", "", {"topic": "the sluice"})
    again = {"app": world.slogans, "query": "Shorter!", "conversation": world.slogan}
    assert await desk.fails("message.send", **again) == ("wrong_mode", "conversation")
    of = {"conversation": world.slogan, "message": world.slogan}
    assert await desk.fails("message.regenerate", **of) == ("wrong_mode", "conversation")
    assert await desk.fails("conversation.fork", **of) == ("wrong_mode", "conversation")


async def test_more_like_this_asks_again_in_a_conversation_that_names_the_message(desk: Desk, world: World) -> None:
    of = {"conversation": world.slogan, "message": world.slogan}
    outcome = await desk.send("message.more_like_this", **of)
    assert outcome.ids == {"message": outcome.command, "conversation": outcome.command}
    [_, asked] = await desk.events("conversation", outcome.command)
    assert isinstance(asked, Conversation.Asked)
    assert (asked.repeats, asked.inputs, asked.message) == (world.slogan, {"topic": "the sluice"}, outcome.command)
    await desk.done("app.configure", app=world.slogans, variables=[{"name": "topic"}])
    assert await desk.fails("message.more_like_this", **of) == ("feature_off", None)
    talk = {"conversation": world.talk, "message": world.answered}
    assert await desk.fails("message.more_like_this", **talk) == ("wrong_mode", "conversation")


async def test_a_message_that_is_asked_again_has_an_id_of_its_own(desk: Desk, world: World) -> None:
    outcome = await desk.send("message.regenerate", conversation=world.talk, message=world.asked)
    assert outcome.ids == {"message": outcome.command, "conversation": world.talk}
    [*_, asked] = await desk.events("conversation", world.talk)
    assert isinstance(asked, Conversation.Asked)
    assert (asked.parent, asked.repeats, asked.query) == (world.answered, world.asked, "Where?")


async def test_a_branch_begins_after_any_message(desk: Desk, world: World) -> None:
    fields = {"app": world.app, "query": "And then?", "conversation": world.talk}
    await desk.done("message.send", parent_message=world.answered, **fields)
    [*_, asked] = await desk.events("conversation", world.talk)
    assert isinstance(asked, Conversation.Asked)
    assert asked.parent == world.answered
    assert await desk.fails("message.send", parent_message=new_id(), **fields) == ("not_found", "parent_message")


async def test_a_key_for_one_app_repeats_its_messages_only(desk: Desk, world: World) -> None:
    scope = {"permissions": ["chat"], "apps": [world.app]}
    key = "k_" + await desk.done("api_key.create", name="Site", digest="5" * 64, hint="a1B2", **scope)
    own, other = {"conversation": world.talk}, {"conversation": world.slogan}
    message, slogan = {"message": world.answered}, {"message": world.slogan}
    for name, mine, theirs in (
        ("message.regenerate", own | message, other | slogan),
        ("message.more_like_this", None, other | slogan),
        ("message.save", own | message, other | slogan),
        ("conversation.pin", own, other),
        ("conversation.request_name", None, other),
    ):
        assert (await desk.send(name, theirs, actor=key)).code == "forbidden"
        if mine:
            assert (await desk.send(name, mine, actor=key)).status == "accepted"


# --- names, icons, sites and tags ----------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


async def test_a_name_or_a_description_is_changed_alone(desk: Desk, world: World) -> None:
    await desk.done("app.rename", app=world.app, description="Answers.")
    await desk.done("app.rename", app=world.app, name="Porter")
    app = await desk.fold("app", world.app)
    assert isinstance(app, App)
    assert (app.name, app.description) == ("Porter", "Answers.")
    assert await desk.fails("app.rename", app=world.app) == ("invalid", "name")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
async def test_an_icon_can_be_an_image_of_the_object_store(
    desk: Desk, world: World, data: bytes, media_type: str
) -> None:
    digest = await desk.blobs.put(desk.tenant, data)
    icon = {"type": "image", "icon": digest, "background": "#ffead5"}
    await desk.done("app.set_icon", app=world.app, icon=icon)
    await desk.done("app.set_site", app=world.app, icon=icon, title="Ask")
    events = (await desk.events("app", world.app))[-2:]
    assert [named for event in events for named in named_blobs(event)] == 2 * [("icon", digest)]
    app = await desk.fold("app", world.app)
    assert isinstance(app, App)
    assert app.icon == {**icon, "media_type": media_type}
    assert app.site
    assert app.site["icon"] == app.icon
    await desk.done("app.set_icon", app=world.app, icon={"type": "emoji", "icon": "⚓"})
    assert named_blobs((await desk.events("app", world.app))[-1]) == []


@pytest.mark.parametrize(
    ("data", "code"), [(None, "not_found"), (b"<svg onload=...>", "invalid"), (PNG + bytes(2**20), "too_large")]
)
async def test_what_is_no_image_is_no_icon(desk: Desk, world: World, data: bytes | None, code: str) -> None:
    digest = "0" * 64 if data is None else await desk.blobs.put(desk.tenant, data)
    icon = {"type": "image", "icon": digest}
    for name in ("app.set_icon", "app.set_site"):
        assert await desk.fails(name, app=world.app, icon=icon) == (code, "icon.icon")


async def test_a_tag_is_for_one_kind(desk: Desk, world: World) -> None:
    assert await desk.fails("tag.create", kind="app", name=" mill ") == ("exists", "name")
    label = await desk.done("tag.create", kind="knowledge", name="Mill")
    await desk.done("tag.bind", tag=label, dataset=world.dataset)
    assert await desk.fails("tag.bind", tag=label, app=world.app) == ("not_found", "tag")
    assert await desk.fails("tag.rename", kind="app", tag=label, name="x") == ("not_found", "tag")
    assert await desk.fails("tag.bind", tag=label) == ("invalid", "app")
    assert await desk.fails("tag.bind", tag=label, app=world.app, dataset=world.dataset) == ("invalid", "app")
    other = Desk(desk.server, f"{desk.tenant}x")
    assert await other.fails("tag.delete", kind="app", tag=world.label) == ("not_found", "tag")


async def test_a_key_for_one_app_tags_only_that(desk: Desk, world: World) -> None:
    scope = {"permissions": ["dataset.manage"], "apps": [world.app]}
    key = "k_" + await desk.done("api_key.create", name="Site", digest="5" * 64, hint="a1B2", **scope)
    for fields, code in (({"app": world.app}, None), ({"app": world.slogans}, "forbidden")):
        assert (await desk.send("tag.unbind", {"tag": world.label, **fields}, actor=key)).code == code
    assert (await desk.send("tag.create", {"kind": "app", "name": "x"}, actor=key)).code == "forbidden"
