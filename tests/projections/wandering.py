"""Unforeseen histories: whatever may happen to a few aggregates, in any order."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar, cast

from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.end_user import EndUser, earlier_person_id
from domain.access.tenant import HOUSE, Tenant
from domain.aggregate import Rejection
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.chat.tags import Tags
from domain.knowledge import curation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.knowledge.retrieval import Retrieval
from domain.knowledge.segmentation import Segmentation
from domain.models.model import Model, Prices, begun
from domain.models.model_call import ModelCall
from domain.models.provider import Credential, Found, Provider
from domain.tools.plugin import Manifest, Package, Plugin, PluginRun
from domain.tools.plugin_storage import PluginStorage, Value
from domain.tools.plugin_use import PluginUse
from domain.tools.question import Question
from domain.tools.tool_call import ToolCall
from domain.work.dead_letter import DeadLetter
from domain.workflows.run import Run, Values
from domain.workflows.workflow import Workflow
from tests.projections import runs
from tests.projections.history import HIT, RETRIEVAL, TOKENS, History, citation, files_of, outcome, verdict

TENANTS = ("one", "two")
MANIFEST = cast("Manifest", {"name": "mask", "kind": "filter"})

_EDITS = [
    *(
        "disable",
        "enable",
        "archive",
        "unarchive",
        "unarchive",
        "rename",
        "set_metadata",
        "resume_sync",
        "fail_sync",
    ),
    *3 * ["add_segment", "edit_segment", "disable_segment", "enable_segment", "delete_segment", "mark_synced"],
]

_TALKING = ["ask", "answer", "answer", "rate", "stop", "fail", "retry", "rename", "pin", "unpin", "save", "unsave"]
_TALKING += ["checked", "matched", "suggest", "suggested", "ask_with_files", "fetch", "hold", "resume"]

Noun = TypeVar("Noun", App, Conversation, Dataset, Document)


def id_of(kind: int, number: int) -> str:
    return f"00000000-0000-7000-8{kind:03}-{number:012}"


def wander(random: Random, steps: int, few: int = 2, *, late: bool = True, skew_s: float = 0.0) -> History:
    """Two tenants choose the same ids for a `few` aggregates of each kind, and do things to them.

    With `late`, workers whose attempt is over go on now and then, as they could before steps were fenced by attempt.
    The clocks of the machines are up to `skew_s` seconds apart.
    """
    skew = (lambda: timedelta(seconds=random.uniform(-skew_s, skew_s))) if skew_s else timedelta
    walk = _Walk(random, few, History(skew=skew), late=late)
    for number in range(steps):
        walk.history.tenant = random.choice(TENANTS)
        walk.history.person = None
        walk.history.correlation = f"command-{number}"
        random.choice(walk.steps)(number)
        if number % 9 == 0:
            walk.workflow(number, Random(number))
        if number % 5 == 0:
            walk.run(number, Random(number))
    return walk.history


class _Walk:
    def __init__(self, random: Random, few: int, history: History, *, late: bool) -> None:
        self.random = random
        self.late = late
        self.few = few
        self.history = history
        self.letters: dict[tuple[str, str], DeadLetter] = {}
        self.accounts: dict[str, Account] = {}
        self.tenants: dict[str, Tenant] = {}
        self.keys: dict[tuple[str, str], ApiKey] = {}
        self.tags: dict[tuple[str, str], Tags] = {}
        self.workflows: dict[tuple[str, str], Workflow] = {}
        self.runs: dict[tuple[str, int], tuple[Run, str]] = {}
        """Each with the command that began it."""
        self.annotations: dict[tuple[str, str], Annotation] = {}
        self.providers: dict[tuple[str, str], Provider] = {}
        self.models: dict[tuple[str, str], Model] = {}
        self.plugins: dict[str, Plugin] = {}
        self.uses: dict[tuple[str, str], PluginUse] = {}
        self.storages: dict[tuple[str, str], PluginStorage] = {}
        self.known: dict[tuple[str, str], App | Conversation | Dataset | Document] = {}
        self.traces: dict[tuple[str, str], str] = {}
        self.calls: list[tuple[str, str, str | None, ModelCall]] = []
        self.tools: list[tuple[str, str, str | None, ToolCall]] = []
        self.persons: dict[tuple[str, str], str | None] = {}
        self.erased: dict[tuple[str, str], int] = {}
        self.steps = (
            [self.app, self.document, self.talk, self.decide, self.delete, self.field]
            + 3 * [self.curate]
            + 5 * [self.work, self.message]
            + 4 * [self.call, self.end]
            + [self.letter, self.retrieve, self.erase, self.audio]
            + [self.account, self.member, self.key, self.tag]
            + 2 * [self.annotate]
            + 2 * [self.tool]
            + [self.provider, self.model, self.plugin]
        )

    def some(self, kind: type[Noun]) -> Noun | None:
        mine = [noun for (tenant, _), noun in self.known.items() if tenant == self.history.tenant]
        found = [noun for noun in mine if isinstance(noun, kind) and (not noun.deleted or kind in (App, Dataset))]
        return self.random.choice(found) if found else None

    def decide(self, number: int) -> None:
        self.history.decide(outcome(self.history, name="app.create"))

    def app(self, number: int) -> None:
        id = id_of(1, self.random.randrange(self.few))
        app = self.known.get((self.history.tenant, id))
        if not isinstance(app, App):
            self.known[self.history.tenant, id] = self.history.app(id=id)
        elif not app.deleted:
            self.history.configure(app, f"prompt {number}")

    def document(self, number: int) -> None:
        """Also in a dataset that was deleted: the uploader may not have heard of it yet."""
        id, dataset = id_of(3, self.random.randrange(2 * self.few)), id_of(2, self.random.randrange(self.few))
        if (self.history.tenant, dataset) not in self.known:
            self.known[self.history.tenant, dataset] = self.history.dataset(dataset)
        if (self.history.tenant, id) not in self.known:
            if user := self.random.choice([None, "bo", "cy"]):
                self.history.person = self.persons[self.history.tenant, id] = self.person(user)
            self.known[self.history.tenant, id] = self.history.document(dataset, id)
            self.traces[self.history.tenant, id] = self.history.correlation

    def talk(self, number: int) -> None:
        id, app = id_of(4, self.random.randrange(2 * self.few)), self.some(App)
        if app and (self.history.tenant, id) not in self.known:
            user = self.random.choice(["bo", "cy"])
            self.history.door = self.random.choice([None, "bus", "viewer"])
            self.history.person = self.persons[self.history.tenant, id] = self.person(user)
            self.known[self.history.tenant, id] = self.history.conversation(app.id, user, id)

    def provider(self, number: int) -> None:
        at, place = self.history.now, (self.history.tenant, self.random.choice(["openai", "lab"]))
        name, weight = self.random.choice(["default", "spare"]), self.random.randrange(1, 5)
        key = Credential(name=name, weight=weight, sealed_key=f"sealed {number}", hint="")
        known = self.providers.get(place)
        if known is None:
            known = self.providers[place] = Provider.begin(
                Provider.Registered, place[1], at, kind="openai", base_url="http://a", credentials=[key]
            )
        ended = Found(
            check=known.check,
            code=self.random.choice([None, "timeout"]),
            reason=None,
            model=None,
            models=number,
            latency_ms=None,
            limits={},
        )
        with suppress(Rejection):
            match self.random.choice(["register", "add", "take", "check", "end", "end", "remove"]):
                case "register":
                    address = self.random.choice(["http://a", "http://b"])
                    known.register(at, kind="ollama", base_url=address, credential=key)
                case "add" if not known.deleted:
                    known.add_credential(at, key)
                case "take" if not known.deleted:
                    known.remove_credential(at, name=name)
                case "check" if not known.deleted:
                    known.request_check(at, check=f"check {number}", model=None)
                case "end":
                    known.end_check(at, {name: self.random.choice([None, "unauthorized"])}, **ended)
                case "remove":
                    known.remove(at)
        if known.pending_events:
            self.history.record(known)

    def model(self, number: int) -> None:
        """Entries, lists and checks of the models that are called."""
        provider, name = self.random.choice([("openai", "gpt-4o-mini"), ("lab", "no-such-model")])
        at, place = self.history.now, (self.history.tenant, name)
        known = self.models[place] = begun(self.models.get(place), provider, name, at)
        prices = self.random.choice([None, Prices(input=number, output=1.0, cached=None, cache_write=None)])
        limits: dict[str, Any] = {"context_window": number, "max_output": None}
        with suppress(Rejection):
            match self.random.choice(["set", "set", "remove", "list", "check"]):
                case "set":
                    known.set_entry(at, type="chat", abilities={}, prices=prices, rpm=None, tpm=number, **limits)
                case "remove":
                    known.remove_entry(at)
                case "list":
                    known.take_listing(at, server="api.openai.com:443", type=None, **limits)
                case "check":
                    able = self.random.random() < 0.5
                    known.take_check(at, check=f"check {number}", abilities={"tools": able}, context_window=number)
        if known.pending_events:
            self.history.record(known)

    def plugin(self, number: int) -> None:
        """Packages in the house, and their use by tenants."""
        name, tenant, at = self.random.choice(["mask", "see"]), self.history.tenant, self.history.now
        package = Package(package_version=f"1.0.{number}", digest=f"{number:064}", manifest=MANIFEST, content="none")
        self.history.person = None
        if self.random.random() < 0.3:
            known = self.plugins.get(name)
            if known is None:
                known = self.plugins[name] = Plugin.begin(Plugin.Installed, name, at, **package)
            elif self.random.random() < 0.7:
                known.install(at, **package)
            else:
                known.remove(at)
            if known.pending_events:
                self.history.record(known, HOUSE)
            return
        if self.random.random() < 0.3:
            self._stores(number, name)
            return
        use = self.uses.get((tenant, name))
        if use is None:
            use = self.uses[tenant, name] = PluginUse.begin(PluginUse.Begun, name, at)
        match self.random.choice(["configure", "enable", "disable", "suspend", "resume"]):
            case "configure":
                use.configure(at, settings={"mark": number}, secrets={"token": f"sealed {number}"})
            case "enable":
                use.enable(at, content=self.random.random() < 0.5)
            case "disable":
                use.disable(at)
            case "suspend":
                use.suspend(at, digest=f"{number:064}", reason=f"It ended {number} times.")
            case "resume":
                use.resume(at, digest=f"{number:064}")
        if use.pending_events:
            self.history.record(use)

    def _stores(self, number: int, name: str) -> None:
        """A plugin stores or deletes a value, or the tenant deletes all."""
        tenant, at = self.history.tenant, self.history.now
        storage = self.storages.get((tenant, name))
        if storage is None:
            storage = self.storages[tenant, name] = PluginStorage.begin(PluginStorage.Begun, name, at)
        key = f"{self.random.randrange(3):064}"
        match self.random.choice(["store", "store", "delete", "clear"]):
            case "store":
                storage.store(at, key=key, value=Value(digest=f"{number:064}", size=number, person=None), most=10**9)
            case "delete":
                storage.delete(at, key=key)
            case "clear":
                storage.clear(at)
        if storage.pending_events:
            self.history.record(storage)

    def filtered(self, call: ModelCall, number: int) -> None:
        """Record hooks of a plugin, in the commit of the call."""
        if self.random.random() < 0.3:
            code = self.random.choice([None, "timeout"])
            run = PluginRun(
                name="mask",
                version="1.0.0",
                digest=f"{number:064}",
                hook="before_invoke" if call.status == "requested" else "after_invoke",
                action="fail" if code else "replace",
                changed=code is None,
                ms=0.5,
                code=code,
            )
            call.filter(self.history.now, plugins=[run] * self.random.randrange(3), original=None)

    def audio(self, number: int) -> None:
        """A recording and a text of a person; each may end, before or after an erasure, or stay open."""
        self.history.person = person = self.person(self.random.choice(["bo", "cy"]))
        recording, speech = self.history.recording(id_of(11, number)), self.history.speech(id_of(11, number))
        if self.random.random() < 0.3:
            self.erase(number)
            self.history.person = person
        if self.random.random() < 0.8:
            self.history.transcribe(recording)
            self.history.speak(speech)
        else:
            recording.fail(self.history.now, code="timeout", reason=f"{number} is silent.")
            self.history.record(recording)

    def person(self, user: str) -> str:
        return earlier_person_id(user, self.erased.get((self.history.tenant, user), 0))

    def erase(self, number: int) -> None:
        """Erase a person, and delete what the person uploaded."""
        user = self.random.choice(["bo", "cy"])
        person, mine = self.person(user), self.history.tenant
        self.history.record(EndUser.begin(EndUser.Erased, person, self.history.now, known=True))
        self.history.person = person
        for (tenant, id), noun in self.known.items():
            if isinstance(noun, Document) and tenant == mine and self.persons.get((tenant, id)) == person:
                noun.delete(self.history.now)
                if noun.pending_events:
                    self.history.record(noun)
        self.erased[self.history.tenant, user] = self.erased.get((self.history.tenant, user), 0) + 1

    def account(self, number: int) -> None:
        """Accounts are people of the house, and go with them."""
        self.history.tenant, user, now = HOUSE, self.random.choice(["bo", "cy"]), self.history.now
        self.history.person = id = self.person(user)
        account = self.accounts.get(id)
        if account is None:
            made = {"kind": "person", "name": user, "email": f"{user}@example.org", "password": "hash"}
            account = self.accounts[id] = Account.begin(Account.Created, id, now, **made)
        else:
            match self.random.choice(["rename", "password", "sign_out", "disable", "enable", "erase"]):
                case "rename":
                    account.rename(now, name=f"Name {number}")
                case "password":
                    account.change_password(now, password=f"hash {number}")
                case "erase":
                    account.erase(now)
                case verb:
                    getattr(account, verb)(now)
        if account.pending_events:
            self.history.record(account)
        if account.deleted:
            self.history.record(EndUser.begin(EndUser.Erased, id, self.history.now, known=True))
            self.erased[HOUSE, user] = self.erased.get((HOUSE, user), 0) + 1

    def member(self, number: int) -> None:
        name, now = self.history.tenant, self.history.now
        self.history.tenant, accounts = HOUSE, ["ada", "bo", "cy"]
        if (tenant := self.tenants.get(name)) is None:
            tenant = self.tenants[name] = Tenant.begin(Tenant.Created, name, now, name=name, owner="ada")
        account, role, digest = self.random.choice(accounts), self.random.choice(["admin", "viewer"]), str(number % 3)
        with suppress(Rejection):
            match self.random.choice(["add", "set_role", "remove", "transfer", "invite", "accept", "withdraw"]):
                case "add":
                    tenant.add(now, account, role)
                case "set_role":
                    tenant.set_role(now, account, role, by="anon")
                case "remove":
                    tenant.remove(now, account, by="anon")
                case "transfer":
                    tenant.transfer(now, account)
                case "invite":
                    tenant.invite(now, digest=digest, role=role, ends_at=now + timedelta(days=1))
                case "accept":
                    tenant.accept(now, digest=digest, account=account)
                case "withdraw":
                    tenant.withdraw(now, digest=digest)
        if tenant.pending_events:
            self.history.record(tenant)

    def tag(self, number: int) -> None:
        """Also of what was deleted: the sender may not have heard of it yet."""
        kind, place = self.random.choice([("app", 1), ("knowledge", 2)])
        found, now = self.tags.get((self.history.tenant, kind)), self.history.now
        if found is None:
            found = self.tags[self.history.tenant, kind] = Tags.begin(Tags.Begun, kind, now)
        # Two kinds have no tag in common: the id is that of the command.
        tag, target = id_of(11 + place, self.random.randrange(self.few)), id_of(place, self.random.randrange(self.few))
        with suppress(Rejection):
            match self.random.choice(["create", "create", "rename", "bind", "bind", "unbind", "remove"]):
                case "create" | "rename" as verb:
                    getattr(found, verb)(now, tag=tag, name=f"Tag {number}")
                case "bind" | "unbind" as verb:
                    getattr(found, verb)(now, tag=tag, target=target)
                case "remove":
                    found.remove(now, tag=tag)
        if found.pending_events:
            self.history.record(found)

    def key(self, number: int) -> None:
        id, now = id_of(10, self.random.randrange(self.few)), self.history.now
        key = self.keys.get((self.history.tenant, id))
        digest, hint = f"{number:064}", f"{number:04}"
        if key is None:
            made: dict[str, Any] = {"name": "Key", "permissions": ["chat"], "apps": [], "datasets": []}
            made |= {"digest": digest, "hint": hint, "expires_at": None, "account": None}
            key = self.keys[self.history.tenant, id] = ApiKey.begin(ApiKey.Created, id, now, **made)
        elif not key.deleted:
            match self.random.choice(["rename", "replace", "revoke"]):
                case "rename":
                    key.rename(now, name=f"Key {number}")
                case "replace":
                    key.replace(now, digest=digest, hint=hint, former_ends_at=now + timedelta(days=1))
                case "revoke":
                    key.revoke(now)
        if key.pending_events:
            self.history.record(key)

    def follow(self, noun: str) -> None:
        """Go on with the trace that something belongs to; a late worker goes on with another."""
        known = [trace for (tenant, _), trace in self.traces.items() if tenant == self.history.tenant]
        if trace := self.traces.get((self.history.tenant, noun)):
            self.history.correlation = self.random.choice(known) if self.late and self.random.random() < 0.1 else trace

    def call(self, number: int) -> None:
        """Also for what has ended, or is gone."""
        causes = [id for (tenant, id) in self.traces if tenant == self.history.tenant]
        id = self.random.choice(causes) if causes else f"unknown-{number}"
        self.follow(id)
        kind, provider, model = self.random.choice(
            [
                ("chat", "builtin", "extractive"),
                ("chat", "openai", "gpt-4o-mini"),
                ("chat", "lab", "no-such-model"),
                ("embedding", "builtin", "tiny"),
                ("rerank", "builtin", "lexical-2"),
            ]
        )
        self.history.person = self.random.choice([None, self.person("bo"), self.person("cy")])
        self.history.causation = self.by_tool(id)
        call = ModelCall.begin(
            ModelCall.Requested,
            id_of(7, number),
            self.history.now,
            kind=kind,
            provider=provider,
            model=model,
            cause_noun="document" if id.startswith(id_of(3, 0)[:23]) else "message",
            cause_id=id,
            request={"query": f"Question {number}?", "segments": ["segment-1"]}
            if kind == "rerank"
            else {
                "messages": [{"role": "user", "pieces": [{"from": "query", "text": f"Question {number}?"}]}],
                "parameters": {},
            },
        )
        self.filtered(call, number)
        self.history.record(call)
        self.history.causation = None
        self.calls.append((self.history.tenant, self.history.correlation, self.history.person, call))

    def end(self, number: int) -> None:
        if not self.calls:
            return
        tenant, trace, self.history.person, call = self.calls.pop(self.random.randrange(len(self.calls)))
        self.history.tenant = tenant
        # A retry under another command may find that an earlier call was lost.
        self.history.correlation = self.random.choice([trace, trace, trace, f"command-{number}"])
        match self.random.choice(["complete", "complete", "fail", "lose", "cancel"]):
            case "complete":
                call.complete(
                    self.history.now,
                    response="[0.75]" if call.kind == "rerank" else f"Answer {number}.",
                    finish_reason="stop",
                    usage=TOKENS,
                    first_token_ms=self.random.choice([None, 8.5]),
                    duration_ms=90.0,
                )
            case "cancel":
                usage = self.random.choice([None, TOKENS])
                call.cancel(self.history.now, response="Fo", reasoning="It is.", usage=usage, duration_ms=30.0)
            case how:
                code = "timeout" if how == "fail" else "lost"
                usage = self.random.choice([None, TOKENS]) if how == "fail" else None
                reason = f"Silence {number}."
                call.fail(self.history.now, code=code, reason=reason, response="", usage=usage, duration_ms=None)
        self.filtered(call, number)
        self.history.record(call)

    def tool(self, number: int) -> None:
        """A call of a tool begins, or goes on; persons decide about it by commands of their own."""
        if self.tools and self.random.random() < 0.6:
            self.go_on_with_tool(number)
        elif messages := self.messages():
            id = self.random.choice(messages)
            self.follow(id)
            self.history.person = self.random.choice([None, self.person("bo"), self.person("cy")])
            call = self.history.tool_call(id, id_of(16, number), held=self.random.random() < 0.5)
            self.tools.append((self.history.tenant, self.history.correlation, self.history.person, call))

    def go_on_with_tool(self, number: int) -> None:
        command = self.history.correlation
        of = self.random.choice(self.tools)
        self.history.tenant, self.history.correlation, self.history.person, call = of
        now = self.history.now
        match self.random.choice(["release", "refuse", "ask", "answer", "begin", "complete", "fail", "lose", "cancel"]):
            case "ask":
                asked = [Question(name=str(each), message=f"{each}?", form={}) for each in range(1 + number % 2)]
                call.ask(now, questions=asked, state="state", session=number % 3 == 0, seconds=60.0)
            case "answer" if call.question:
                self.history.correlation = command
                call.answer(now, action="decline", content={})
            case "release" if call.status == "held" and not call.question:
                self.history.correlation = command
                call.release(now)
            case "refuse" if call.status == "held":
                self.history.correlation = command
                call.refuse(now, code="refused", reason=f"No, by {number}.")
            case "begin":
                call.begin_again(now, attempt=call.attempt + 1)
            case "complete":
                parts = [{"type": "json", "value": {"number": number}}]
                call.complete(now, text=f"It is {number}.", parts=parts, duration_ms=12.5)
            case "fail":
                call.fail(now, code="timeout", reason=f"Silence {number}.", duration_ms=30.0)
            case "lose":
                call.fail(now, code="lost", reason="It died.", duration_ms=None)
            case "cancel":
                call.cancel(now, duration_ms=None)
        if call.pending_events:
            self.history.record(call)
        if call.ended:
            self.tools.remove(of)

    def messages(self) -> list[str]:
        return [id for (tenant, id) in self.traces if tenant == self.history.tenant and id[19:23] == "8005"]

    def retrieve(self, number: int) -> None:
        """For an answer, or by one of its tools."""
        messages = self.messages()
        if not messages:
            return
        id = self.random.choice(messages)
        self.follow(id)
        self.history.causation = self.by_tool(id)
        failed = self.random.random() < 0.3
        made = Retrieval.begin(
            Retrieval.Made,
            id_of(8, number),
            self.history.now,
            query=f"Question {number}?",
            datasets=["the-dataset"],
            retrieval=RETRIEVAL,
            cause_noun="message",
            cause_id=id,
            attempt=1 + number % 2,
            hits=[] if failed else [HIT],
            duration_ms=7.5 + 2000 * (number % 4),
            code="unreachable" if failed else None,
            reason="The index is away." if failed else None,
        )
        self.history.record(made)
        self.history.causation = None

    def by_tool(self, message: str) -> str | None:
        """A call of a tool of this message, or none."""
        mine = [
            each.id for tenant, *_, each in self.tools if tenant == self.history.tenant and each.cause_id == message
        ]
        return self.random.choice([None, *mine])

    def run(self, number: int, random: Random) -> None:
        """A run begins, or something happens to it; what a worker does follows from the command that began it."""
        history, key = self.history, (self.history.tenant, random.randrange(self.few))
        if key[0] not in TENANTS:  # the house has no runs
            return
        history.person = history.causation = None
        if key not in self.runs:
            apps = [id for (tenant, id), noun in self.known.items() if tenant == key[0] and isinstance(noun, App)]
            app = random.choice(apps) if apps else "unknown"
            history.correlation = f"run-{number}"
            self.runs[key] = runs.begun(history, id_of(31, number), app=app), history.correlation
            return
        run, began = self.runs[key]
        history.correlation = began if not self.late or random.random() < 0.8 else f"command-{number}"
        run.take(history.now, by=f"{number}")
        if run.pending_events:
            history.record(run)
        step = partial(runs.step, history.now)
        inner, values = f"each/{random.randrange(3)}/ask", Values(outputs={"text": runs.text("So.")})
        with suppress(Rejection):
            match random.randrange(7):
                case 0 | 1:
                    steps = [(step("start", type="start"), values), (step("each", "running", "iteration"), Values())]
                    runs.record(history, run, *steps, (step(inner, "running"), Values()))
                case 2:
                    call: Any = random.choice([call.id for *_, call in self.calls] or ["unknown"])
                    named = [{"noun": "model_call", "id": call}]
                    runs.record(history, run, (step(inner, calls=named, tokens=3), values))
                case 3:
                    error = Values(error="It is odd.")
                    failed = step("draft", "failed", error_type="Odd")
                    runs.record(history, run, (step("no", "skipped"), Values()), (failed, error))
                case 4:
                    waits = (step("ask", "running", "human-input"), Values())
                    runs.record(history, run, waits, forms=(runs.form("ask", history.now),), paused=True)
                case 5:
                    run.time_out(history.now + timedelta(days=1), key="ask")
                    if run.pending_events:
                        history.record(run)
                case 6:
                    runs.finish(history, run, random.choice(["succeeded", "failed", "stopped"]))
                    del self.runs[key]

    def workflow(self, number: int, random: Random) -> None:
        """Also of an app that was deleted: the sender may not have heard of it yet."""
        app, now, mine = id_of(1, random.randrange(self.few)), self.history.now, self.history.tenant
        found = self.workflows.get((mine, app))
        if found is None:
            found = self.workflows[mine, app] = Workflow.begin(Workflow.Begun, app, now)
        blob = json.dumps({"workflow": {"graph": {"nodes": [], "edges": []}, "features": {"n": number % 3}}}).encode()
        digest = hashlib.sha256(blob).hexdigest()
        self.history.blobs[mine, digest] = blob
        before, graph = (found.draft["document"], found.draft["graph"]) if found.draft else (None, "")
        with suppress(Rejection):
            match random.choice(["save", "save", "publish", "restore"]):
                case "save":
                    found.save(now, replaces=before, document=digest, graph=f"graph {number}", file=None, secrets={})
                case "publish":
                    found.publish(now, graph=graph, name=f"v {number}", comment="")
                case "restore":
                    found.restore(now, number=random.randrange(1, 4))
        if found.pending_events:
            self.history.person = None
            self.history.record(found)

    def delete(self, number: int) -> None:
        nouns = [noun for (tenant, _), noun in self.known.items() if tenant == self.history.tenant and not noun.deleted]
        if nouns and self.random.random() < 0.4:
            noun = self.random.choice(nouns)
            noun.delete(self.history.now)
            self.history.record(noun)

    def annotate(self, number: int) -> None:
        """Of a person, or of none; embedded by one model or two."""
        id, app, mine = id_of(15, self.random.randrange(self.few)), self.some(App), self.history.tenant
        annotation = self.annotations.get((mine, id))
        if app and not app.deleted and self.random.random() < 0.2:
            app.set_annotation_reply(self.history.now, enabled=number % 2 == 0, score_threshold=0.9, embedding=None)
            app.annotations_embedded(self.history.now, embedding_model=f"model-{number % 2}")
            if app.pending_events:
                self.history.record(app)
        if annotation is None:
            if app:
                self.history.person = self.persons[mine, id] = self.random.choice([None, self.person("bo")])
                of: dict[str, Any] = {"app": app.id, "conversation": None, "message": None}
                annotation = self.annotations[mine, id] = Annotation.begin(
                    Annotation.Created, id, self.history.now, question=f"Question {number}?", answer="Yes.", **of
                )
                self.history.record(annotation)
            return
        self.history.person = self.persons[mine, id]
        match self.random.choice(["edit", "embed", "embed", "embed", "remove"]):
            case "edit" if not annotation.deleted:
                annotation.edit(self.history.now, question=None, answer=f"Answer {number}.")
            case "embed":
                model = f"model-{number % 2}"
                annotation.embed(self.history.now, revision=annotation.revision, embedding_model=model, vector="AAA=")
            case "remove" if self.random.random() < 0.3:
                annotation.remove(self.history.now)
        if annotation.pending_events:
            self.history.record(annotation)

    def letter(self, number: int) -> None:
        id = id_of(6, self.random.randrange(self.few))
        letter = self.letters.get((self.history.tenant, id))
        died: dict[str, Any] = {"sequence": number, "where": "", "stack": "", "failures": 0, "deaths": 10}
        died["reason"] = f"It died at {number}."
        if letter is None:
            of: dict[str, Any] = {
                "consumer": "commands",
                "stream": "COMMANDS",
                "subject": "cmd.one.anon.app.create",
                "message": id,
            }
            letter = self.letters[self.history.tenant, id] = DeadLetter.begin(
                DeadLetter.Buried, id, self.history.now, **of, **died
            )
        elif not letter.waits:
            letter.come_back(self.history.now, **died)
        elif self.random.random() < 0.5:
            letter.retry(self.history.now)
        else:
            letter.discard(self.history.now)
        self.history.record(letter)

    def work(self, number: int) -> None:
        document = self.some(Document)
        if not document:
            return
        mine, command = self.history.tenant, self.history.correlation
        self.history.person = self.persons.get((mine, document.id))
        self.follow(document.id)
        match self.random.choice(["split", "index", "index", "index", "fail", "retry", "reprocess"]):
            case "split" if not document.ended:
                texts = [f"{number % 4} text {position}" for position in range(self.random.randint(1, 3))]
                if self.random.random() < 0.2:
                    texts = ["As it was before."]
                self.history.split(document, texts, family=self.random.random() < 0.3)
            case "index" if document.status == "indexing" and document.done < document.total:
                self.history.index(document, self.random.randint(1, document.total - document.done))
            case "reprocess" if not document.archived:
                self.history.correlation = command
                rules = self.random.choice([None, Segmentation(mode="custom", overlap=number % 9).plain()])
                document.reprocess(self.history.now, segmentation=rules)
                if any(isinstance(event, Document.Reprocessed) for event in document.pending_events):
                    self.traces[mine, document.id] = command
                if document.pending_events:
                    self.history.record(document)
            case "fail" if not document.ended:
                document.fail(self.history.now, stage="indexing", code="broken", reason="It broke.")
                self.history.record(document)
            case "retry" if document.status == "error":
                self.history.correlation = self.traces[mine, document.id] = command
                document.retry(self.history.now)
                self.history.record(document)

    def field(self, number: int) -> None:
        dataset = self.some(Dataset)
        if not dataset or dataset.deleted:
            return
        names, now = ["author", "year", "writer"], self.history.now
        name, other = self.random.choice(names), self.random.choice(names)
        with suppress(Rejection):
            match self.random.choice(["add", "rename", "remove"]):
                case "add":
                    dataset.add_metadata_field(now, field=id_of(9, number), name=name, type="string")
                case "rename":
                    dataset.rename_metadata_field(now, name=name, new_name=other)
                case "remove":
                    dataset.remove_metadata_field(now, name=name)
        if dataset.pending_events:
            self.history.record(dataset)

    def curate(self, number: int) -> None:
        """Edit a document and its segments, and let the index follow."""
        document = self.some(Document)
        if not document:
            return
        self.history.person = self.persons.get((self.history.tenant, document.id))
        segments = [segment_id(document.id, cut["segments"], place) for cut in document.revisions for place in range(3)]
        segments += [id for id, overlay in document.edits.items() if overlay["segments"] is None]
        fields: dict[str, Any] = {}
        match verb := self.random.choice(_EDITS):
            case "rename":
                fields = {"name": f"{number}.md"}
            case "set_metadata":
                fields = {"metadata": {self.random.choice(["author", "year"]): self.random.choice([number, None])}}
            case "add_segment":
                fields = {"segment": id_of(9, number), "content": f"{number} added", "answer": None}
            case "mark_synced":
                fields = {"settled": document.sync["changed"]}
            case "fail_sync":
                fields = {"code": "internal_error", "reason": "It broke."}
            case str() if verb.endswith("_segment"):
                fields = {"segment": self.random.choice([*segments, "unknown"])}
        if verb == "edit_segment":
            fields |= {"content": f"{number} edited", "answer": self.random.choice([None, "So."])}
        with suppress(Rejection):
            (getattr(curation, verb, None) or getattr(Document, verb))(document, self.history.now, **fields)
        if document.pending_events:
            self.history.record(document)

    def message(self, number: int) -> None:
        conversation = self.some(Conversation)
        if not conversation:
            return
        last = next(reversed(conversation.messages), None)
        status = conversation.messages[last]["status"] if last else None
        self.history.person = self.persons[self.history.tenant, conversation.id]
        mine, command = self.history.tenant, self.history.correlation
        self.follow(last or "")
        match self.random.choice(_TALKING):
            case "ask":
                self.history.correlation = self.traces[mine, id_of(5, number)] = command
                self.history.ask(conversation, id=id_of(5, number))
            case "ask_with_files":
                self.history.correlation = self.traces[mine, id_of(5, number)] = command
                self.history.ask(conversation, id=id_of(5, number), files=files_of(id_of(5, number)))
            case "fetch" if last and len(conversation.files(last)) == 2 and not conversation.files(last)[1]["digest"]:
                self.history.fetch(conversation, last, conversation.files(last)[1]["id"])
            case "answer" if last and status == "asked":
                self.history.answer(conversation, last, [citation(position) for position in (1, 2)])
            case "rate" if last and status == "answered":
                rating = self.random.choice(["like", "dislike", None])
                conversation.rate(self.history.now, message=last, rating=rating, content=f"{number}")
            case "stop" if last and status == "asked":
                conversation.stopped(self.history.now, message=last, answer="Fo")
            case "fail" if last and status == "asked":
                conversation.fail(self.history.now, message=last, code="timeout", reason="Silence.", answer="Fo")
            case "hold" if last and status == "asked":
                conversation.hold(self.history.now, message=last, calls=["a-call"])
            case "resume" if last and status == "held":
                conversation.resume(self.history.now, message=last)
            case "retry" if last and status == "failed":
                if self.random.random() < 0.7:
                    self.history.correlation = self.traces[mine, last] = command
                conversation.retry(self.history.now, message=last)
            case "rename":
                conversation.rename(self.history.now, name=f"Name {number}")
            case "pin" | "unpin" as verb:
                getattr(conversation, verb)(self.history.now)
            case "save" | "unsave" as verb if last and status == "answered":
                getattr(conversation, verb)(self.history.now, message=last)
            case "checked" if last and status == "asked":
                verdicts = [verdict("input", "flagged", action="replace"), verdict("output", "failed", code="timeout")]
                # An attempt records its verdicts once.
                self.history.moderate(conversation, last, *verdicts[: self.random.randint(1, 2)], attempt=number + 1)
            case "matched" if last and status == "asked":
                annotation = id_of(15, self.random.randrange(self.few))
                conversation.match(
                    self.history.now, message=last, annotation=annotation, score=0.95, embedding_model="a-model"
                )
            case "suggest" if last and status == "answered":
                conversation.request_suggestions(self.history.now, message=last, configuration=1)
            case "suggested" if last:
                found: dict[str, Any] = {"questions": ["Why?"]} if number % 2 else {"questions": [], "code": "timeout"}
                conversation.suggest(self.history.now, message=last, model_call="", **found)
        if conversation.pending_events:
            self.history.record(conversation)
