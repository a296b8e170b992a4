"""A recorded call made again, another model asked the same, and a conversation that goes two ways."""

from __future__ import annotations

import pytest

from domain.aggregate import new_id
from tests.chat_servers import faulty_server, works
from tests.journeys.stack import Row, Stack
from tests.journeys.test_models import provider_of

TEXT = "The weir was built in 1911 by Otto Brandt.\n\nThe fish ladder has 38 basins."


@pytest.fixture(scope="module")
async def app(headrace: Stack) -> str:
    """An app that knows the text, and whose second configuration has instructions of its own."""
    dataset = await headrace.make("dataset.create", name="weir")
    document = await headrace.make("document.upload", dataset=dataset, name="weir.txt", text=TEXT)
    app = await headrace.make("app.create", name="weir keeper")
    variables = [{"name": "tone", "default": "brief"}]
    await headrace.send("app.configure", app=app, datasets=[dataset], prompt="Be {{tone}}.", variables=variables)
    await headrace.ended([document])
    return app


async def call_of(headrace: Stack, cause: str) -> Row:
    """The chat call that was made for a message or a replay, once it has completed."""
    statement = "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' AND status = 'completed'"
    [call] = await headrace.until(statement, id=cause)
    [sent] = await headrace.sql("SELECT * FROM headrace.model_call_requests WHERE id = %(id)s", id=call["id"])
    return call | sent


async def replayed(headrace: Stack, **payload: object) -> tuple[Row, Row]:
    """A replay that has ended well, and its call."""
    id = await headrace.make("replay.request", **payload)
    [row] = await headrace.until("SELECT * FROM headrace.replays WHERE id = %(id)s AND status <> 'requested'", id=id)
    assert row["status"] == "completed", row
    call = await call_of(headrace, id)
    assert (call["id"], call["cause_noun"], call["correlation_id"]) == (row["replayed_call_id"], "replay", id)
    return row, call


async def test_a_recorded_call_is_made_again(headrace: Stack, app: str) -> None:
    frames = await headrace.ask(app, "Who built the weir?", inputs={"tone": "exact"})
    assert "Otto Brandt" in frames[-1]["answer"]
    call = await call_of(headrace, frames[0]["message"])
    system = call["request"]["messages"][0]["content"]
    texts = {source["from"]: system[source["start"] : source["end"]] for source in call["sources"][:-1]}
    assert texts["input"] == "exact"
    [found] = await headrace.until("SELECT * FROM headrace.retrievals WHERE cause_id = %(id)s", id=frames[0]["message"])
    assert found["query"] == "Who built the weir?"
    ranks = {hit["segment"]: hit["rank"] for hit in found["hits"]}
    assert all(ranks[source["segment"]] == source["rank"] for source in call["sources"] if source["from"] == "segment")

    _, again = await replayed(headrace, call=call["id"])
    assert (again["response"], again["request"]) == (call["response"], call["request"])

    await headrace.send("app.configure", app=app, prompt="Speak {{tone}}ly!", variables=[{"name": "tone"}])
    row, reworded = await replayed(headrace, call=call["id"], configuration=2)
    assert reworded["request"]["messages"][0]["content"] == system.replace("Be exact.", "Speak exactly!")
    assert (row["app_id"], row["app_model_config_number"]) == (app, 2)

    async with faulty_server(works) as server:
        model = {"provider": provider_of(server.url), "name": "other"}
        await headrace.send("provider.register", name=model["provider"], base_url=server.url)
        _, other = await replayed(headrace, call=call["id"], model=model, parameters={"top_p": 0.5})
        [request] = server.requests
    assert request.body["messages"] == call["request"]["messages"]
    assert (request.body["model"], request.body["top_p"]) == ("other", 0.5)
    assert (other["response"], other["server"]) == ("Fine.", server.url.split("/")[2])
    assert other["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert (await headrace.refused("replay.request", call=new_id()))["code"] == "not_found"


async def test_a_conversation_goes_two_ways(headrace: Stack, app: str) -> None:
    first = await headrace.ask(app, "How many basins has the fish ladder?")
    talk, message = first[0]["conversation"], first[0]["message"]
    await headrace.ask(app, "When was the weir built?", conversation=talk)
    fork = await headrace.make("conversation.fork", conversation=talk, message=message, name="What if")
    other = await headrace.ask(app, "And who built it?", conversation=fork)
    assert other[-1]["type"] == "answered"
    call = await call_of(headrace, other[0]["message"])
    said = [part["content"] for part in call["request"]["messages"][1:]]
    assert said == ["How many basins has the fish ladder?", first[-1]["answer"], "And who built it?"]
    assert {source["message_id"] for source in call["sources"] if source["from"] == "history"} == {message}
    [row] = await headrace.until("SELECT * FROM headrace.conversations WHERE id = %(id)s", id=fork)
    assert (row["name"], row["app_id"]) == ("What if", app)
    of = "SELECT id FROM headrace.messages WHERE conversation_id = %(id)s"
    assert [row["id"] for row in await headrace.until(of, id=fork)] == [other[0]["message"]]
    assert len(await headrace.until(of, lambda rows: len(rows) == 2, id=talk)) == 2
    rating = {"conversation": fork, "message": message, "rating": "like"}
    assert (await headrace.refused("message.rate", **rating))["code"] == "not_answered"
