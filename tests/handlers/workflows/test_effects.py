"""Outside calls of runs whose workers die: none is made twice that is not harmless, and none that is on the log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.models.model_call import ModelCall
from domain.workflows.effect import Effect
from domain.workflows.requests import HttpRequest, ModelRequest
from domain.workflows.run import Run
from domain.workflows.values import infer
from handlers.abilities import Abilities
from handlers.models.model_calls import ModelCalls
from handlers.ports.files import Fetched
from handlers.ports.http import NoResponse, Response, Sending
from handlers.repository import Repository
from handlers.workflows.execution import Executor
from handlers.workflows.http import SendHttp
from handlers.workflows.model import CallModel
from tests.domain.workflows.golden import Case
from tests.handlers.fakes import choosing
from tests.handlers.tools.scene import Scripted
from tests.handlers.workflows.stage import Stage, graph
from tests.memory import Memory

WORLD: Case = {"graph": {}, "mode": "workflow"}
MODEL = {"provider": "lab", "name": "m", "mode": "chat", "completion_params": {"temperature": 0.5}}


def request(id: str, method: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "http-request",
        "method": method,
        "url": f"http://world.test/{id}",
        "authorization": {"type": "no-auth"},
        **more,
    }


def whole(method: str = "post", **more: Any) -> Any:
    nodes = [
        {"id": "start", "type": "start"},
        request("look", "get"),
        {
            "id": "model",
            "type": "llm",
            "model": MODEL,
            "prompt_template": [{"role": "user", "text": "{{#look.body#}} {{#env.KEY#}}"}],
            "context": {"enabled": False},
        },
        request("pay", method, headers="X-Key: {{#env.KEY#}}", **more),
        {
            "id": "end",
            "type": "end",
            "outputs": [
                {"variable": "said", "value_selector": ["model", "text"]},
                {"variable": "paid", "value_selector": ["pay", "body"]},
            ],
        },
    ]
    edges = [("start", "look"), ("look", "model"), ("model", "pay"), ("pay", "end"), ("pay", "end", "fail-branch")]
    return graph(nodes, edges, environment_variables=[{"name": "KEY", "value_type": "secret", "value": ""}])


class Outside(Stage):
    """A stage with a real record of calls, a server that counts, and a model that is asked once for each answer."""

    def __init__(self, memory: Memory, tenant: str) -> None:
        super().__init__(memory, tenant)
        self.play(WORLD)
        self.sent: list[Sending] = []
        self.model = Scripted(*["Pay it."] * 9)
        self.own = self.calls
        self.fault: NoResponse | None = None

    def calls(self, repository: Repository) -> Mapping[type, Executor]:
        model = CallModel(ModelCalls(repository), choosing(repository, self.model), Abilities(repository), self._fetch)
        return {HttpRequest: SendHttp(repository, self.desk.files, self._send, self._fetch), ModelRequest: model}

    async def _send(self, tenant: str, sending: Sending, most: int) -> Response:
        self.sent.append(sending)
        if self.fault:
            raise self.fault
        return Response(200, {"content-type": "text/plain"}, b"sesame-7 is right" if "pay" in sending.url else b"7 m")

    async def _fetch(self, tenant: str, url: str, most: int) -> Fetched:
        raise AssertionError(url)

    async def begun(self, drawn: Any, **fields: Any) -> str:
        """A run whose workflow has a secret."""
        app = await self.desk.done("app.create", name="Desk", mode="workflow")
        document = drawn.normalised
        await self.desk.done("workflow.save", app=app, document=document, secrets={"KEY": "sesame-7"})
        await self.desk.done("workflow.publish", workflow=app)
        return await self.started(drawn, app=app, **fields)

    def counted(self) -> Counter[str]:
        return Counter(sending.url.rpartition("/")[2] for sending in self.sent)


async def test_calls_are_on_the_log_and_secrets_are_not(memory: Memory, tenant: str) -> None:
    stage = Outside(memory, tenant)
    id = await stage.begun(whole(), user="ada")
    run = await stage.work(id)
    assert run.status == "succeeded"
    status, outputs, _ = await stage.end(id)
    assert (status, outputs["said"]) == ("succeeded", "Pay it.")
    assert outputs["paid"].startswith("secret:KEY:")
    assert stage.sent[1].headers["X-Key"] == "sesame-7"
    assert "Idempotency-Key" in stage.sent[1].headers
    assert "Idempotency-Key" not in stage.sent[0].headers
    assert stage.model.asked[0].messages[0].content == "7 m sesame-7"
    nouns = Counter(message.subject.split(".")[2] for message in memory.streams["EVENTS"].messages)
    assert (nouns["effect"], nouns["model_call"]) == (4, 2)
    for commit in await stage.commits(id):
        assert "sesame-7" not in str(commit.events)
    steps = [step for event in await stage.events(id) if isinstance(event, Run.Stepped) for step in event.steps]
    made = {step["key"]: step["calls"][0]["noun"] for step in steps if "calls" in step}
    assert made == {"look": Effect.TOPIC, "model": ModelCall.TOPIC, "pay": Effect.TOPIC}
    assert [step["tokens"] for step in steps if "tokens" in step] == [15]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_no_call_is_made_twice_that_is_not_harmless(after: bool) -> None:
    results = set()
    for number in range(1, 12):
        stage = Outside(Memory(), f"t{new_id()[:8]}")
        id = await stage.begun(whole())
        await stage.work(id, kill=number, after=after)
        status, outputs, error = await stage.end(id)
        assert stage.counted()["pay"] <= 1
        assert stage.counted()["look"] <= 2
        assert len(stage.model.asked) <= 2
        if status == "succeeded":
            assert stage.counted()["pay"] == 1
            assert outputs["said"] == "Pay it."
        else:
            assert "unknown" in error
        results.add(status)
    assert results == {"succeeded", "failed"}  # where the worker died with the request in flight


async def test_a_lost_request_takes_the_branch_of_errors(memory: Memory, tenant: str) -> None:
    stage = Outside(memory, tenant)
    drawn = whole(error_strategy="fail-branch")
    lost = []
    for number in range(1, 12):
        stage = Outside(Memory(), f"t{new_id()[:8]}")
        id = await stage.begun(drawn)
        await stage.work(id, kill=number)
        steps = [step for event in await stage.events(id) if isinstance(event, Run.Stepped) for step in event.steps]
        lost += [step for step in steps if step.get("error_type") == "LostError"]
        assert (await stage.end(id))[0] in ("succeeded", "partial-succeeded")
    assert {step["status"] for step in lost} == {"exception"}


async def test_a_node_may_say_that_its_request_is_harmless(memory: Memory, tenant: str) -> None:
    for number in range(1, 12):
        stage = Outside(Memory(), f"t{new_id()[:8]}")
        id = await stage.begun(whole(idempotent=True))
        await stage.work(id, kill=number)
        assert (await stage.end(id))[0] == "succeeded"
        keys = {sending.headers["Idempotency-Key"] for sending in stage.sent if "pay" in sending.url}
        assert len(keys) == 1


async def test_tries_share_a_key_and_are_recorded_each(memory: Memory, tenant: str) -> None:
    stage = Outside(memory, tenant)
    retries = {"retry_enabled": True, "max_retries": 2, "retry_interval": 100}
    id = await stage.begun(whole(retry_config=retries))
    stage.fault = NoResponse("timeout", "It is silent about sesame-7.")
    await stage.work(id)
    status, _, error = await stage.end(id)
    assert status == "failed"
    assert "sesame-7" not in error


async def test_a_body_that_is_no_text_becomes_a_file(memory: Memory, tenant: str) -> None:
    stage = Outside(memory, tenant)

    async def send(tenant: str, sending: Sending, most: int) -> Response:
        headers = {"content-type": "image/png", "content-disposition": 'attachment; filename="a.png"'}
        return Response(200, headers, b"\x89PNG\r\n\x1a\n\xff")

    stage._send = send  # type: ignore[method-assign]
    nodes = [
        {"id": "start", "type": "start"},
        request("look", "get"),
        {"id": "end", "type": "end", "outputs": [{"variable": "o", "value_selector": ["look", "files"]}]},
    ]
    id = await stage.started(graph(nodes, [("start", "look"), ("look", "end")]), user="ada")
    await stage.work(id)
    [file] = (await stage.end(id))[1]["o"]
    assert (file.type, file.filename, file.extension, file.mime_type, file.size) == (
        "image",
        "a.png",
        ".png",
        "image/png",
        9,
    )
    person = (await stage.commits(id))[0].metadata.person
    data = await stage.desk.files.get(tenant, person, "file", file.related_id)
    assert data == b"\x89PNG\r\n\x1a\n\xff"


async def test_a_json_body_holds_a_secret_as_json(memory: Memory, tenant: str) -> None:
    stage = Outside(memory, tenant)
    body = {"type": "json", "data": [{"type": "text", "value": '{"key": "{{#env.KEY#}}", "a": "{{#start.a#}}"}'}]}
    drawn = whole(body=body)
    app = await stage.desk.done("app.create", name="Desk", mode="workflow")
    await stage.desk.done("workflow.save", app=app, document=drawn.normalised, secrets={"KEY": 'a "b"'})
    await stage.desk.done("workflow.publish", workflow=app)
    id = await stage.started(drawn, app=app, inputs={"a": infer('say "c"')})
    await stage.work(id)
    assert json.loads(stage.sent[1].content or b"") == {"key": 'a "b"', "a": 'say "c"'}
