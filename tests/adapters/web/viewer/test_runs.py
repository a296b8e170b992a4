"""Workflows in the viewer: graphs, runs with their states, values and forms, and two runs side by side."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.chat.app import App
from domain.models.model_call import ModelCall
from domain.workflows.graph import load
from domain.workflows.run import Finish, Run, Source, Step, Values
from domain.workflows.workflow import Workflow
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import Site, serving, text_of
from tests.projections.history import TOKENS
from tests.projections.runs import BEGUN, step, text

EVIL = "<script>alert(1)</script> \u202egnp.exe"


def node(id: str, type: str, at: tuple[int, int], parent: str | None = None, **data: Any) -> dict[str, Any]:
    within = {"parentId": parent} if parent else {}
    place = {"position": {"x": at[0], "y": at[1]}}
    return {"id": id, "data": {"type": type, "title": data.pop("title", id.title()), **data}, **place, **within}


def edge(source: str, target: str, handle: str = "source") -> dict[str, Any]:
    return {"id": f"{source}-{handle}-{target}", "source": source, "target": target, "sourceHandle": handle}


GRAPH = {
    "nodes": [
        node("start", "start", (0, 80)),
        node("sort", "if-else", (300, 80), title=f"Sort {EVIL}"),
        node("draft", "llm", (600, 0)),
        node("ask", "human-input", (600, 200), title="Ask the keeper"),
        node("each", "iteration", (900, 0)),
        node("begin", "iteration-start", (20, 80), "each"),
        node("clean", "code", (80, 60), "each"),
        node("end", "end", (1300, 80)),
    ],
    "edges": [
        edge("start", "sort"), edge("sort", "draft", "true"), edge("sort", "ask", "false"), edge("draft", "each"),
        edge("begin", "clean"), edge("each", "end"), edge("ask", "end"),
    ],
}  # fmt: skip
DOCUMENT = {"kind": "app", "app": {"mode": "workflow"}, "workflow": {"graph": GRAPH}}


@dataclass
class Works:
    site: Site
    app: App
    graph: str

    async def begun(self, **fields: Any) -> Run:
        of = BEGUN | {"app": self.app.id, "graph": self.graph, "version": 1}
        run = Run.begin(Run.Started, new_id(), self.site.now, **of | fields)
        await self.record(run)
        run.take(self.site.now, by="first")
        await self.record(run)
        return run

    async def record(self, run: Run) -> None:
        await self.site.record(run, f"trace-of-{run.id}")

    async def stepped(self, run: Run, *steps: tuple[Step, Values], **more: Any) -> None:
        batch: Any = {"steps": [each for each, _ in steps], "values": [values for _, values in steps]}
        run.step(self.site.now, **batch, **more)
        await self.record(run)

    async def finished(self, run: Run, status: str = "succeeded", **more: Any) -> None:
        none: dict[str, Any] = {"outputs": {}, "code": "", "reason": "", "steps": 5, "exceptions": 0, "tokens": 9}
        run.finish(self.site.now, **Finish(**{"status": status, **none, "duration_ms": 2500.0, **more}))  # type: ignore[typeddict-item]
        await self.record(run)

    async def whole(self, reply: str = "The gate is north.", items: int = 3, **fields: Any) -> Run:
        """A run that has ended, with a call of a model and some items."""
        run, at = await self.begun(**fields), self.site.now
        call = ModelCall.begin(
            ModelCall.Requested,
            new_id(),
            self.site.now,
            kind="chat",
            provider="openai",
            model="gpt-4o-mini",
            cause_noun="run",
            cause_id=run.id,
            request={"messages": [], "parameters": {}},
        )
        await self.site.record(call, f"trace-of-{run.id}")
        call.complete(
            self.site.now, response=reply, finish_reason="stop", usage=TOKENS, first_token_ms=1.0, duration_ms=9.0
        )
        await self.site.record(call, f"trace-of-{run.id}")
        made: Any = [{"noun": "model_call", "id": call.id}]
        large = {"type": "string", "blob": await self.blob(json.dumps("x" * 40_000)), "bytes": 40_002}
        inner = [
            (step(at, f"each/{number}/clean"), Values(outputs={"n": {"type": "number", "data": number}}))
            for number in range(items)
        ]
        await self.stepped(
            run,
            (step(at, "start", type="start"), Values(outputs={"place": text("weir")})),
            (step(at, "sort", type="if-else", handle="true"), Values()),
            (step(at, "ask", "skipped", "human-input"), Values()),
            (step(at, "draft", type="llm", calls=made, tokens=9), Values(outputs={"text": text(reply), "all": large})),
            *inner,
            (step(at, "each", type="iteration"), Values(outputs={"output": {"type": "array[number]", "data": [0, 1]}})),
            (step(at, "end", type="end"), Values(outputs={"text": text(reply)})),
        )
        await self.finished(run, outputs={"text": text(reply)})
        return run

    async def waiting(self) -> Run:
        run, at = await self.begun(), self.site.now
        form: Any = {
            "key": "ask",
            "node": "ask",
            "until": (at + timedelta(days=3)).isoformat(),
            "content": f"Open the gate? {EVIL}\n{{{{#$output.why#}}}}",
            "inputs": [
                {"output_variable_name": "why", "type": "paragraph", "default": "no <reason>"},
                {"output_variable_name": "gate", "type": "select", "option_source": {"value": ["north", "south"]}},
            ],
            "actions": [{"id": "yes", "title": "Open it"}, {"id": "no", "title": "No"}],
        }
        steps = ((step(at, "start", type="start"), Values()), (step(at, "ask", "running", "human-input"), Values()))
        await self.stepped(run, *steps, forms=[form], paused=True)
        return run

    async def blob(self, content: str) -> str:
        return await self.site.wiring.files.put(self.site.tenant, None, "value", content.encode())


@pytest.fixture(scope="module")
async def works(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Works]:
    async with serving(tmp_path_factory.mktemp("runs"), lone_nats.url, module_database_url) as site:
        app = App.begin(App.Created, new_id(), site.now, name="Gate <keeper>", description="", mode="workflow")
        await site.record(app, new_id())
        made = Works(site, app, "")
        made.graph = await made.blob(json.dumps(load(DOCUMENT).normalised))
        workflow = Workflow.begin(Workflow.Begun, app.id, site.now)
        workflow.save(
            site.now,
            replaces=None,
            document=await made.blob(json.dumps(DOCUMENT)),
            graph=made.graph,
            file=None,
            secrets={},
        )
        workflow.publish(site.now, graph=made.graph, name="First", comment="As it was.")
        await site.record(workflow, new_id())
        yield made


async def test_the_lists_have_workflows_and_runs(works: Works) -> None:
    site = works.site
    run = await works.whole()
    failed = await works.begun(trigger="draft", version=None)
    await works.finished(failed, "failed", reason=f"It is odd. {EVIL}")
    await site.settled()
    page = await site.get("/workflows")
    assert EVIL not in page
    said = text_of(page)
    for words in ("Gate <keeper>", "workflow 1", "as published", "weir", "The gate is north.", "failed", "It is odd."):
        assert words in said, words
    assert f'href="/workflows/runs/{run.id}"' in page
    rows = (await site.json("/workflows", state="failed"))["runs"]
    assert [row["id"] for row in rows] == [failed.id]
    assert "No run matches." in text_of(await site.get("/workflows", state="stopped"))
    assert [row["id"] for row in (await site.json("/workflows", app="keeper"))["runs"]][-1] == run.id
    part = await site.get("/workflows", part="runs")
    assert part.lstrip().startswith('<div id="run-rows" data-live')


async def test_a_run_shows_its_graph_with_states_and_its_values(works: Works) -> None:
    site, run = works.site, await works.whole()
    await site.settled()
    page = await site.get(f"/workflows/runs/{run.id}")
    assert EVIL not in page
    nodes = re.findall(r'<a class="node (\w+) (\w*)[^"]*"[^>]*aria-label="([^"]*)"', page)
    assert {label.split(",")[0]: status for _, status, label in nodes} == {
        "Start": "succeeded", "Draft": "succeeded", "Ask the keeper": "skipped", "Each": "succeeded",
        "Clean": "succeeded", "End": "succeeded",
        "Sort &lt;script&gt;alert(1)&lt;/script&gt; ⟨U+202E⟩gnp.exe": "succeeded",
    }  # fmt: skip
    assert "3 × " in text_of(page), "the executions of all items"
    assert (page.count('class="way taken"'), page.count('class="way"')) == (5, 2)
    said = text_of(page)
    for words in ("succeeded", "2.50 s", "Inputs place string weir", "Outputs text string The gate is north."):
        assert words in said, words
    assert "data-live" not in page
    panel = text_of(await site.get(f"/workflows/runs/{run.id}", step="draft", part="panel"))
    for words in ("llm Draft succeeded", "text string The gate is north.", "all string, 40,002 bytes", "model call"):
        assert words in panel, words
    at, whole = f"/workflows/runs/{run.id}/value", {"step": "draft", "of": "outputs", "name": "all"}
    value = await site.client.get(at, params=whole)
    assert (value.status_code, value.text) == (200, "x" * 40_000)
    for wrong in ({"step": "draft", "of": "outputs", "name": "no"}, {"step": "draft", "of": "title", "name": "0"}):
        assert (await site.client.get(at, params=wrong)).status_code == 404
    items = text_of(await site.get(f"/workflows/runs/{run.id}", step="each", part="panel"))
    assert re.search(r"Items Item State Steps Took 0 succeeded 1 .* 2 succeeded 1", items)
    item = await site.get(f"/workflows/runs/{run.id}", step="each/2", part="panel")
    assert "Each : item 2" in text_of(item)
    assert "step=each%2F2%2Fclean" in item
    inner = text_of(await site.get(f"/workflows/runs/{run.id}", step="each/2/clean", part="panel"))
    assert "n number 2" in inner
    await site.get(f"/workflows/runs/{run.id}", 404, step="nothing")
    await site.get("/workflows/runs/nothing", 404)


async def test_a_form_is_answered_on_the_page(works: Works) -> None:
    site, run = works.site, await works.waiting()
    await site.settled()
    page = await site.get(f"/workflows/runs/{run.id}")
    assert EVIL not in page
    said = text_of(page)
    for words in ("paused", "It waits for a person.", "Open the gate?", "Open it", "north south"):
        assert words in said, words
    assert "no &lt;reason&gt;</textarea>" in page
    assert "data-live" in page
    at = f"/workflows/runs/{run.id}/answer"
    refused = await site.post(at, 400, step="ask", action="maybe", **{"field.why": "a"})
    assert "It is one of yes, no." in text_of(refused.text)
    answered = await site.post(at, 200, step="ask", action="yes", **{"field.why": "A ship <b>.", "field.gate": "south"})
    assert answered.url.path == f"/workflows/runs/{run.id}"
    await site.settled()
    said = text_of(await site.get(f"/workflows/runs/{run.id}", step="ask"))
    for words in ("Form: answered", "A ship <b>.", "south", "Button: Open it"):
        assert words in said, words
    again = await site.post(at, 400, step="ask", action="no")
    assert "answered before with yes" in text_of(again.text)


async def test_a_run_is_stopped_on_the_page(works: Works) -> None:
    site, run = works.site, await works.begun()
    await works.stepped(run, (step(site.now, "draft", "running", "llm"), Values()))
    await site.settled()
    page = await site.get(f"/workflows/runs/{run.id}")
    assert f'action="/workflows/runs/{run.id}/stop"' in page
    live = await site.get(f"/workflows/runs/{run.id}", part="live")
    assert live.count("hx-swap-oob") == 2
    await site.post(f"/workflows/runs/{run.id}/stop")
    await site.settled()
    assert "stop requested" in text_of(await site.get(f"/workflows/runs/{run.id}"))
    await site.post("/workflows/runs/nothing/stop", 404)


async def test_a_run_begins_again_from_a_step_or_from_what_failed(works: Works) -> None:
    site = works.site
    nodes = [node("start", "start", (0, 0), variables=[]), node("draft", "template-transform", (9, 9), template="So.")]
    small = {"graph": {"nodes": [*nodes, node("end", "end", (0, 0), outputs=[])], "edges": [edge("start", "draft")]}}
    plain = load({"kind": "app", "app": {"mode": "workflow"}, "workflow": small})
    graph = await works.blob(json.dumps(plain.normalised))
    run = await works.whole(graph=graph)
    await site.settled()
    page = await site.get(f"/workflows/runs/{run.id}", step="draft")
    assert "Run again from here" in text_of(page)
    assert f'action="/workflows/runs/{run.id}/retry"' not in page
    again = await site.post(f"/workflows/runs/{run.id}/fork", step="draft", graph="")
    made = again.url.path.rpartition("/")[2]
    await site.settled()
    found = (await site.json(f"/workflows/runs/{made}"))["run"]
    assert (found["source_id"], found["source_kind"], found["source_step"]) == (run.id, "fork", "draft")
    assert found["status"] == "scheduled"
    refused = await site.post(f"/workflows/runs/{run.id}/fork", 400, step="nothing")
    assert "The graph has no node nothing." in text_of(refused.text)
    failed = await works.begun(graph=graph)
    await works.stepped(failed, (step(site.now, "draft", "failed", "llm"), Values(error="It is odd.")))
    await works.finished(failed, "failed", reason="It is odd.")
    await site.settled()
    assert f'action="/workflows/runs/{failed.id}/retry"' in await site.get(f"/workflows/runs/{failed.id}")
    again = await site.post(f"/workflows/runs/{failed.id}/retry")
    await site.settled()
    found = (await site.json(again.url.path))["run"]
    assert (found["source_id"], found["source_kind"]) == (failed.id, "retry")


async def test_two_runs_are_compared_step_by_step(works: Works) -> None:
    site, one = works.site, await works.whole()
    two = await works.whole("The gate is south.", 2, source=Source(run=one.id, kind="fork", step="draft"))
    await site.settled()
    page = await site.get("/workflows/compare", a=one.id, b=two.id)
    said = text_of(page)
    assert "<del>north</del><ins>south</ins>" in page
    assert re.search(r"Clean each/2/clean succeeded 500 ms –\s+only A came to it", said)
    assert re.search(r"Start succeeded 500 ms succeeded 500 ms the same", said)
    found = await site.json("/workflows/compare", a=one.id, b=two.id)
    assert {row["step"] for row in found["steps"] if row["differs"]} == {"draft", "end", "each/2/clean"}
    source = text_of(await site.get(f"/workflows/runs/{two.id}"))
    assert "Fork of" in source
    assert "from draft" in source
    assert "Runs that keep its results: fork from draft" in text_of(await site.get(f"/workflows/runs/{one.id}"))
    await site.get("/workflows/compare", 404, a=one.id, b="nothing")
    assert "One run (its id)" in text_of(await site.get("/workflows/compare"))


async def test_a_graph_is_drawn_without_a_run(works: Works) -> None:
    site = works.site
    await site.settled()
    page = await site.get(f"/workflows/{works.app.id}")
    said = text_of(page)
    for words in ("Gate <keeper> version 1", "First", "As it was.", "Ask the keeper", "human-input"):
        assert words in said, words
    assert page.count('class="way"') == 7
    assert "draft" in text_of(await site.get(f"/workflows/{works.app.id}", version="draft"))
    await site.get("/workflows/nothing", 404)
