"""Audits the log: folds it again from its first message, and finds what breaks a promise."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from domain.aggregate import Aggregate, Event
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.chat.site import Icon
from domain.chat.speech import Speech
from domain.chat.transcription import Transcription
from domain.knowledge.document import Document
from domain.log import EVENTS, NOT_FINAL, OUTCOMES, Commit, Position, Subject, Verdict, commit_id
from domain.models.model_call import ModelCall
from domain.models.passage import Passage
from domain.models.piece import pieces, quoted, spans
from domain.tools.plugin import Plugin, PluginRun
from domain.tools.plugin_storage import PluginStorage
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from domain.workflows.run import Run, blobs, named
from domain.workflows.workflow import Workflow
from handlers.files import Kind
from handlers.work.quarantine import discards
from handlers.work.work import PENDING, WORKS, Pending, callers

FIRST = 10
"""Faults of a check that are kept in words; all are counted."""


@dataclass(slots=True)
class Check:
    """One promise: on how much it was tried, how often it was broken, where first, and what repairs it."""

    name: str
    promise: str
    repair: str
    checked: int = 0
    faults: int = 0
    first: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        self.faults += 1
        if len(self.first) < FIRST:
            self.first.append(what)


class OpenWork(NamedTuple):
    """Work that the commit at `opened` has begun and that has not ended; `since` is its last step."""

    work: str
    tenant: str
    item: str
    opened: int
    since: datetime


class OpenCall(NamedTuple):
    """A call of a model or a tool without an end, and what it is made for."""

    sequence: int
    since: datetime
    cause: tuple[str, str, str]


class Decision(NamedTuple):
    """The outcome of a command at this sequence of OUTCOMES; `commit` is the sequence of its commit, or 0."""

    sequence: int
    tenant: str
    command: str
    accepted: bool
    code: str | None
    commit: int
    version: int | None
    ids: tuple[str, ...]


def named_blobs(event: Event) -> Sequence[tuple[Kind, str]]:
    """Kind and digest of the blobs that an event names, without those that hold its large values."""
    match event:
        case Document.Uploaded():
            return [("file", event.digest)]
        case Document.Split():
            return [("segments", event.segments)]
        case Run.Started() | Run.Stepped() | Run.Finished():
            return list(blobs(event))
        case Conversation.VariablesSet():
            return list(named(event.values))
        case Conversation.Asked():
            return [("file", file["digest"]) for file in event.files or () if file["digest"]]
        case Conversation.FileFetched():
            return [("file", event.digest)]
        case Conversation.FileRead():
            return [("segments", event.segments)]
        case Transcription.Requested() | Speech.Completed():
            return [("file", event.digest)]
        case ModelCall.Requested():
            return [("file", piece["file"]) for piece in pieces(event.request.get("messages") or ()) if "file" in piece]
        case Plugin.Installed() | Plugin.Replaced() | PluginStorage.Stored():
            return [("file", event.digest)]
        case ToolCall.Completed():
            return [("file", part["digest"]) for part in event.parts if "digest" in part]
        case Toolset.Refreshed():
            return [("tools", event.digest)]
        case Toolset.Registered() | Toolset.Changed():
            return [("tools", event.settings["digest"])] if event.settings.get("digest") else []
        case Workflow.DraftSaved() | Workflow.Published() | Workflow.Restored():
            return [("file", digest) for digest in (event.document, event.graph, event.file) if digest]
        case App.FileKept():
            return [("file", event.file)]
        case App.IconSet():
            return _image(event.icon)
        case App.SiteSet():
            return _image(event.site["icon"])
        case _:
            return []


def _image(icon: Icon | None) -> Sequence[tuple[Kind, str]]:
    return [("icon", icon["icon"])] if icon and icon["type"] == "image" else []


class Audit:
    """Takes the messages of both streams, each in order; after `finish`, `checks` say what was found."""

    def __init__(self) -> None:
        self.sequence = Check("sequence", "no message of the log is missing", "headrace restore")
        self.decoded = Check("events", "every event can be read by this version", "headrace quarantine list")
        self.folded = Check("aggregates", "every aggregate folds, each version and commit once", "headrace restore")
        self.decided = Check(
            "commands", "every command has one outcome, and its commit is there", "headrace worker --role commands"
        )
        self.prompts = Check("prompts", "every text that a prompt quotes was recorded before it", "headrace restore")
        self.plugins = Check("plugins", "every package that a call names was installed before it", "headrace restore")
        self.checks = [self.sequence, self.decoded, self.folded, self.decided, self.prompts, self.plugins]
        self.open: dict[tuple[str, Subject], dict[str, OpenWork]] = {}
        """By work and aggregate, then by item."""
        self.calls: dict[Subject, OpenCall] = {}
        self.blobs: dict[tuple[str, str], int] = {}
        """The sequence of the first commit that names a blob, by tenant and digest."""
        self.undecided: dict[tuple[str, str], int] = {}
        """Commits that commands have made, by tenant and command, without an outcome."""
        self.requested = 0
        self.last = {EVENTS: 0, OUTCOMES: 0}
        """The sequence of the message of each stream that was taken last."""
        self._aggregates: dict[Subject, Aggregate | None] = {}
        self._ids: set[str] = set()
        self._subjects: list[Subject | None] = []
        self._versions = array("I")
        self._outcomes: dict[tuple[str, str], str] = {}
        self._decisions: list[Decision] = []
        self._quarantine: dict[Position, str] = {}
        self._discarded: set[Position] = set()
        self._texts: set[str] = set()
        """Texts that prompts may quote: `<tenant>/<name of the text>`."""
        self._packages: set[tuple[str, str]] = set()
        """Name and digest of every package that was installed."""

    def unreadable(self, position: Position, reason: str) -> None:
        """Take a message that cannot be decoded: a fault, unless it is discarded from the quarantine."""
        self._place(position)
        self._quarantine[position] = reason

    def commit(self, commit: Commit) -> None:
        self._place(commit.position)
        self.decoded.checked += len(commit.events)
        subject, metadata, sequence = commit.subject, commit.metadata, commit.position.sequence
        if metadata.id in self._ids:
            self.folded.fault(f"{EVENTS} {sequence}: commit {metadata.id} of {subject} is there twice")
        self._ids.add(metadata.id)
        self._discarded.update(discards(commit))
        if (cause := metadata.causation) and cause not in self._ids and commit_id(cause, str(subject)) == metadata.id:
            self.undecided[subject.tenant, cause] = sequence
        self._subjects += [None] * (sequence - 1 - len(self._subjects)) + [subject]
        self._versions.extend([0] * (sequence - 1 - len(self._versions)) + [commit.events[-1].originator_version])
        aggregate = self._fold(commit)
        for event in commit.events:
            self._note(commit, event, aggregate)

    def name_blobs(self, tenant: str, digests: Iterable[str], sequence: int) -> None:
        """Note that the commit at this sequence needs these blobs."""
        for digest in digests:
            self.blobs.setdefault((tenant, digest), sequence)

    def verdict(self, verdict: Verdict) -> None:
        self._place(verdict.position)
        self.decided.checked += 1
        [outcome] = verdict.events
        sequence, key = verdict.position.sequence, (verdict.subject.tenant, outcome.command)
        if self._outcomes.get(key, NOT_FINAL) != NOT_FINAL:
            self.decided.fault(f"{OUTCOMES} {sequence}: command {outcome.command} has another outcome")
        self._outcomes[key] = outcome.code or ""
        commit = outcome.position.sequence if outcome.position else 0
        ids = tuple(outcome.ids.values())
        self._decisions.append(
            Decision(sequence, *key, outcome.status == "accepted", outcome.code, commit, outcome.version, ids)
        )

    def finish(self, last: Mapping[str, int]) -> None:
        """Compare outcomes with commits, and the end of each stream with its last sequence: all messages were taken."""
        for decision in self._decisions:
            key = decision.tenant, decision.command
            made = self.undecided.get(key)
            if decision.accepted:
                self.undecided.pop(key, None)
                if 0 < decision.commit <= self.last[EVENTS]:
                    self._confirm(decision)
            elif made and decision.code != NOT_FINAL:
                del self.undecided[key]
                what = f"command {decision.command} was rejected, and has changed something"
                self.decided.fault(f"{EVENTS} {made}: {what}")
        self._decisions.clear()
        for position, reason in self._quarantine.items():
            if position not in self._discarded:
                self.decoded.fault(f"{position.stream} {position.sequence}: {reason}")
        for stream, sequence in last.items():
            if sequence > self.last[stream]:
                self.sequence.fault(f"{stream} {self.last[stream] + 1}: missing, up to {sequence}")

    def orphans(self) -> list[tuple[Subject, OpenCall]]:
        """The open calls of models and tools whose cause has ended, so that no work will end them."""
        causes = {(name, item.tenant, item.item) for (name, _), items in self.open.items() for item in items.values()}

        def is_owned(call: OpenCall) -> bool:
            noun, tenant, id = call.cause
            return any((name, tenant, id) in causes for name in callers(noun))

        return [(subject, call) for subject, call in self.calls.items() if not is_owned(call)]

    def _place(self, position: Position) -> None:
        stream, sequence = position
        self.sequence.checked += 1
        if sequence != (expected := self.last[stream] + 1):
            lost = f"{expected}" if sequence == expected + 1 else f"{expected} to {sequence - 1}"
            self.sequence.fault(f"{stream} {lost}: missing" if sequence > expected else f"{stream} {sequence}: again")
        self.last[stream] = sequence

    def _fold(self, commit: Commit) -> Aggregate | None:
        self.folded.checked += 1
        aggregate = self._aggregates.get(commit.subject)
        try:
            for event in commit.events:
                aggregate = event.mutate(aggregate)
        except Exception as error:
            at = f"{EVENTS} {commit.position.sequence}: {commit.subject}"
            self.folded.fault(f"{at} does not fold ({type(error).__name__}: {error})")
            return None
        # A call that has ended is never changed again, and there are more of them than of all else.
        ended = isinstance(aggregate, ModelCall) and aggregate.status != "requested"
        self._aggregates[commit.subject] = None if ended else aggregate
        return aggregate

    def _note(self, commit: Commit, event: Event, aggregate: Aggregate | None) -> None:
        """Keep what the event opens, and forget what it ends."""
        subject, sequence = commit.subject, commit.position.sequence
        match event, aggregate:
            case ModelCall.Requested(), _:
                self.requested += 1
                cause = event.cause_noun, subject.tenant, event.cause_id
                self.calls[subject] = OpenCall(sequence, commit.at, cause)
                self._read(subject, sequence, event.request)
            case Conversation.Asked(), _:
                said = f"question/{event.message}", f"{subject.id}/{event.message}"
                self._texts.update(f"{subject.tenant}/{name}" for name in said)
            case Conversation.Forked(), _:
                self._texts.update(f"{subject.tenant}/{subject.id}/{copied['message']}" for copied in event.messages)
            case App.Configured(), _:
                self._texts.add(f"{subject.tenant}/instructions/{subject.id}/{event.number}")
            case Passage.Recorded(), _:
                self._texts.add(f"{subject.tenant}/passage/{subject.id}")
            case ModelCall.Completed() | ModelCall.Failed() | ModelCall.Cancelled(), _:
                self.calls.pop(subject, None)
            case ((ModelCall.Filtered() | ToolCall.Filtered()), _):
                self._check_plugins(subject, sequence, event.plugins)
            case ((Plugin.Installed() | Plugin.Replaced()), _):
                self._packages.add((subject.id, event.digest))
            case ToolCall.Completed(), _:
                self._texts.add(f"{subject.tenant}/tool_call/{subject.id}")
        if isinstance(aggregate, ToolCall):
            if aggregate.status == "requested":
                cause = aggregate.cause_noun, subject.tenant, aggregate.cause_id
                self.calls.setdefault(subject, OpenCall(sequence, commit.at, cause))
            else:
                self.calls.pop(subject, None)
        self.name_blobs(subject.tenant, (digest for _, digest in named_blobs(event)), sequence)
        for name, pending in PENDING.items():
            if isinstance(aggregate, WORKS[name].noun):
                self._follow(name, pending, commit, event, aggregate)

    def _check_plugins(self, subject: Subject, sequence: int, runs: Sequence[PluginRun]) -> None:
        self.plugins.checked += 1
        for run in runs:
            if (run["name"], run["digest"]) not in self._packages:
                what = f"{subject} names package {run['digest']} of plugin {run['name']}, which was not installed"
                self.plugins.fault(f"{EVENTS} {sequence}: {what}")

    def _read(self, subject: Subject, sequence: int, request: Mapping[str, Any]) -> None:
        """Look for the texts that a prompt quotes."""
        self.prompts.checked += 1
        messages = request.get("messages") or ()
        turns = (f"{conversation}/{message}" for conversation, *ends in spans(messages) for message in ends)
        for name in (*quoted(messages), *turns, *filter(None, [request.get("tools")])):
            if f"{subject.tenant}/{name}" not in self._texts:
                self.prompts.fault(f"{EVENTS} {sequence}: {subject} quotes {name}, which is missing")

    def _follow(self, name: str, pending: Pending, commit: Commit, event: Event, aggregate: Aggregate) -> None:
        """Note the work that the event begins or moves, and drop what has ended."""
        key, item = (name, commit.subject), pending.item(event)
        items = self.open.pop(key, {})
        begins = isinstance(event, WORKS[name].begins)
        if item and (begins or item in items):
            opened = commit.position.sequence if begins else items[item].opened
            items[item] = OpenWork(name, commit.subject.tenant, item, opened, commit.at)
        if items := {item: work for item, work in items.items() if pending.is_open(aggregate, item)}:
            self.open[key] = items

    def _confirm(self, decision: Decision) -> None:
        """The commit that an outcome names must be there, be about what it says, and have its version."""
        sequence = decision.commit
        subject = self._subjects[sequence - 1] if sequence <= len(self._subjects) else None
        at = f"{OUTCOMES} {decision.sequence}: command {decision.command}"
        if subject is None or subject.tenant != decision.tenant or subject.id not in decision.ids:
            self.decided.fault(f"{at} was accepted, and its commit is not at {EVENTS} {sequence}")
        elif self._versions[sequence - 1] != decision.version:
            self.decided.fault(f"{at} made version {decision.version}, and {EVENTS} {sequence} is another")
