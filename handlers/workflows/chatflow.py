"""Messages of apps with a graph: a run answers each, those of one branch of a conversation one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.chat.conversation import Citation, Conversation, Message, Truncation, Usage
from domain.log import Commit, Metadata, commit_id
from domain.workflows.graph import Graph
from domain.workflows.node_type import mapping
from domain.workflows.run import Run
from domain.workflows.start_form import accept
from domain.workflows.values import FILE, Value, array, infer
from domain.workflows.workflow import Workflow
from handlers.commands.runs import initial, run_file, started, system_values
from handlers.files import Files
from handlers.graphs import Graphs
from handlers.ports.log import Live
from handlers.repository import Repository, folded
from handlers.run_values import Past, RunValues

RETRIEVAL = "knowledge-retrieval"

BEGINS = (Conversation.Asked, Conversation.Retried)


@dataclass(frozen=True, slots=True)
class Chatflow:
    repository: Repository
    graphs: Graphs
    files: Files
    live: Live

    async def begins(self, commit: Commit, app: str, message: str) -> bool:
        """Start the run that answers a message, or queue it; False for an app without a graph. Raises: Unavailable."""
        tenant = commit.subject.tenant
        known = self.repository.known(App, tenant, app) or await self.repository.get(App, tenant, app)
        if known is None or not known.has_graph:
            return False
        await self._start(commit.metadata, commit.subject.id, message)
        return True

    async def go_on(self, cause: Metadata, id: str) -> None:
        """Start the runs of messages that were queued, and whose turn it is. Raises: Unavailable."""
        conversation = await self.repository.get(Conversation, cause.tenant, id)
        if conversation is None or conversation.deleted or not (queued := conversation.queued()):
            return
        commits = await self.repository.commits(Conversation, cause.tenant, id)
        asked = {event.message: each.metadata for each in commits for event in each.events if isinstance(event, BEGINS)}
        for message in queued:
            await self._start(asked[message], id, message)

    async def _start(self, cause: Metadata, id: str, message: str) -> None:
        conversation = await self.repository.get(Conversation, cause.tenant, id)
        if conversation is None or conversation.deleted or conversation.ended(message):
            return
        if conversation.waits(message):
            conversation = await self._change(
                cause, id, f"queue:{message}", lambda it, at: it.queue(at, message=message)
            )
        known = conversation.messages[message]
        if known["status"] == "running" or conversation.waits(message):
            return
        run = commit_id(message, f"run:{known['attempt'] + 1}")
        try:
            fields = await self._started(cause, run, conversation, message)
        except Rejection as rejection:
            await self.fail(cause, id, message, rejection.code, rejection.message)
            return
        at, metadata = datetime.now(UTC), cause.caused(commit_id(run, "start"))
        await self.repository.change(
            Run, run, metadata, lambda known: known or Run.begin(Run.Started, run, at, **fields), new=True
        )
        await self._change(cause, id, f"run:{run}", lambda it, at: it.run(at, message=message, run=run))

    async def _started(self, cause: Metadata, run: str, conversation: Conversation, message: str) -> dict[str, Any]:
        """The fields of a run that answers a message. Raises: Rejection; Unavailable."""
        tenant, known = cause.tenant, conversation.messages[message]
        workflow = await self.repository.get(Workflow, tenant, conversation.app)
        if workflow is None or workflow.newest is None:
            raise Rejection("not_published", "The app has no published version.")
        digest = workflow.newest["graph"]
        graph = await self.graphs.get(tenant, digest)
        values = RunValues(self.files, tenant, cause.person)
        inputs = {name: infer(value) for name, value in accept(graph, known["inputs"]).items()}
        said = {
            "query": known["query"],
            "conversation_id": conversation.id,
            "dialogue_count": _count(conversation, known),
        }
        files = Value(array(FILE), [run_file(file) for file in known.get("files", ())])
        system = system_values(conversation.app, run, conversation.user, **said, files=files)
        return started(
            conversation.app,
            digest,
            len(workflow.versions),
            trigger="app",
            user=conversation.user,
            inputs=await values.put(inputs),
            system=await values.put(system),
            mode=graph.mode,
            variables={**await values.put(initial(graph)), **_kept(graph, conversation)},
            conversation=conversation.id,
            message=message,
            tool_call=known.get("tool_call"),
        )

    async def fail(
        self, cause: Metadata, id: str, message: str, code: str, reason: str, answer: str = "", run: str = ""
    ) -> None:
        def fail(conversation: Conversation, at: datetime) -> None:
            if run:
                conversation.run(at, message=message, run=run)
            conversation.fail(at, message=message, code=code, reason=reason[:1000], answer=answer)

        await self._change(cause, id, f"fail:{message}", fail)
        frame = {"type": "failed", "code": code, "reason": reason[:1000]}
        await self.live.publish(cause.tenant, id, message, frame)

    async def _change(
        self, cause: Metadata, id: str, step: str, verb: Callable[[Conversation, datetime], None]
    ) -> Conversation:
        at = datetime.now(UTC)

        def decide(conversation: Conversation | None) -> Conversation:
            assert conversation is not None
            verb(conversation, at)
            return conversation

        metadata = cause.caused(commit_id(cause.id, step))
        return (await self.repository.change(Conversation, id, metadata, decide)).aggregate

    async def end(self, commit: Commit) -> None:
        """End the message that a finished run has answered, and start what waited for it. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        commits = await self.repository.commits(Run, tenant, id)
        run = folded(Run, commits)
        if run is None or not run.ended or not (run.conversation and run.message):
            return
        finished = next(event for each in reversed(commits) for event in each.events if isinstance(event, Run.Finished))
        values = RunValues(self.files, tenant, commit.metadata.person)
        try:
            outputs = await values.get({name: each for name, each in finished.outputs.items() if name == "answer"})
            past = await values.past(commits)
            graph = await self.graphs.get(tenant, run.graph)
        except KeyError:
            await self.fail(commit.metadata, run.conversation, run.message, "erased", "The user was erased.")
            await self.go_on(commit.metadata, run.conversation)
            return
        said = str(outputs["answer"].data) if "answer" in outputs else ""
        if finished.status == "failed":
            code = finished.code or "run_failed"
            await self.fail(commit.metadata, run.conversation, run.message, code, finished.reason, said, id)
        elif finished.status == "stopped" and run.stop_requested:
            await self._stopped(commit.metadata, run.conversation, run.message, id, said)
        elif finished.status == "stopped":
            await self.fail(commit.metadata, run.conversation, run.message, "timeout", finished.reason, said, id)
        else:
            await self._answered(commit.metadata, run, said, finished.duration_ms, past, graph)
        await self.go_on(commit.metadata, run.conversation)

    async def _stopped(self, cause: Metadata, id: str, message: str, run: str, said: str) -> None:
        def stop(conversation: Conversation, at: datetime) -> None:
            conversation.run(at, message=message, run=run)
            conversation.stopped(at, message=message, answer=said)

        await self._change(cause, id, f"stop:{message}", stop)
        await self.live.publish(cause.tenant, id, message, {"type": "stopped", "answer": said})

    async def _answered(
        self, cause: Metadata, run: Run, said: str, duration_ms: float, past: Past, graph: Graph
    ) -> None:
        assert run.conversation
        assert run.message
        id, message, usage = run.conversation, run.message, _usage(past)
        shown = mapping(graph.features.get("retriever_resource")).get("enabled") is not False
        cited = _citations(past) if shown else []

        def answer(conversation: Conversation, at: datetime) -> None:
            conversation.run(at, message=message, run=run.id)  # which may end before that is recorded
            conversation.answer(
                at,
                message=message,
                answer=said,
                citations=cited,
                usage=usage,
                cut=Truncation(segments=0, messages=0),
                model_call="",
                duration_ms=duration_ms,
                finish_reason=None,
            )

        await self._change(cause, id, f"answer:{message}", answer)
        frame = {"type": "answered", "answer": said, "citations": cited, "usage": usage, "finish_reason": None}
        await self.live.publish(cause.tenant, id, message, frame)

    async def stop(self, commit: Commit) -> None:
        """Stop the run of a message whose end was requested. Raises: Unavailable."""
        conversation = await self.repository.get(Conversation, commit.subject.tenant, commit.subject.id)
        for event in commit.events:
            if conversation and isinstance(event, Conversation.StopRequested):
                known = conversation.messages[event.message]
                if run := known.get("run") if known["status"] == "running" else None:
                    await self._stop_run(commit.metadata, run)

    async def _stop_run(self, cause: Metadata, id: str) -> None:
        at = datetime.now(UTC)

        def decide(run: Run | None) -> Run:
            assert run is not None
            if not run.ended:
                run.stop(at)
            return run

        await self.repository.change(Run, id, cause.caused(commit_id(cause.id, f"stop:{id}")), decide)


def _count(conversation: Conversation, message: Message) -> int:
    """The number of earlier messages of the branch."""
    count, parent = 0, message["parent"]
    while parent and (known := conversation.messages.get(parent)):
        count, parent = count + 1, known["parent"]
    return count


def _kept(graph: Graph, conversation: Conversation) -> dict[str, Any]:
    """The values of variables that the graph still has, with their types."""
    types = {each.name: each.type for each in graph.conversation}
    return {name: value for name, value in conversation.variables.items() if types.get(name) == value["type"]}


def _usage(past: Past) -> Usage:
    used = [mapping(result.outputs["usage"].data) for _, result in past.results if "usage" in result.outputs]
    sent, received = (sum(int(each.get(name) or 0) for each in used) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(prompt_tokens=sent, completion_tokens=received, estimated=False)


def _citations(past: Past) -> list[Citation]:
    """The segments that the run found, numbered as they came."""
    found: dict[str, Mapping[str, Any]] = {}
    for step, result in past.results:
        if step["type"] == RETRIEVAL and "result" in result.outputs:
            found |= {each["metadata"]["segment_id"]: each for each in result.outputs["result"].data}
    return [
        Citation(
            position=number,
            dataset=each["metadata"]["dataset_id"],
            document=each["metadata"]["document_id"],
            document_name=each["metadata"]["document_name"],
            segment=id,
            segment_position=each["metadata"]["segment_position"],
            page=each["metadata"]["page"],
            heading=each["metadata"]["heading"],
            sentence="",
            content=each["content"],
            score=each["metadata"]["score"],
        )
        for number, (id, each) in enumerate(found.items(), start=1)
    ]
