"""The viewer's pages that send commands, on a Headrace that runs."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

from tests.adapters.web.viewer.site import serving, text_of
from tests.journeys.stack import PATIENCE_S, Stack


async def test_an_answer_is_replayed_forked_and_accounted_for(headrace: Stack) -> None:
    settings = headrace.settings
    dataset = await headrace.make("dataset.create", name="Gates")
    text = "The harbour gate is four metres high. It opens at high tide."
    document = await headrace.make("document.upload", dataset=dataset, name="gates.md", text=text)
    await headrace.ended([document])
    app = await headrace.make("app.create", name="Harbour help")
    await headrace.send("app.configure", app=app, datasets=[dataset], prompt="Answer shortly.")
    frames = await headrace.ask(app, "How high is the harbour gate?", user="bo")
    assert frames[-1]["type"] == "answered"
    conversation, message = frames[0]["conversation"], frames[0]["message"]
    async with serving(settings.home, settings.nats_url, settings.postgres_url) as site:
        await site.settled()
        chosen = await site.json("/replays/new", trace=message)
        [call] = chosen["calls"]
        sent = await site.post("/replays/new", **{"call": call["id"], "model-1": "", "configuration-2": "1"})
        ids = parse_qs(urlsplit(str(sent.url)).query)["id"]
        assert len(ids) == 2
        async with asyncio.timeout(PATIENCE_S):
            while (found := await site.json("/replays", id=ids))["waiting"]:
                await asyncio.sleep(0.1)
        [comparison] = found["comparisons"]
        assert [made["replay"]["status"] for made in comparison["made"]] == ["completed", "completed"]
        assert "four metres" in comparison["made"][0]["call"]["response"]
        assert "the same" in text_of(await site.get("/replays", id=ids))
        replay = comparison["made"][0]["replay"]["correlation_id"]
        compared = await site.json("/compare", a=message, b=replay)
        assert compared["calls"][0]["answer"]["same"] == 1.0

        forked = await site.post(f"/conversations/{conversation}/fork", message=message)
        fork = urlsplit(str(forked.url)).path.rpartition("/")[2]
        assert fork != conversation
        again = await headrace.ask(app, "When does the gate open?", user="bo", conversation=fork)
        assert again[-1]["type"] == "answered"
        await site.settled()
        assert "four metres" in text_of(await site.get(f"/conversations/{fork}"))

        proof = await site.json("/proof")
        assert all(equation["holds"] for equation in proof["equations"].values()), proof
