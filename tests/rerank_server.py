"""A real server of `POST /v1/rerank` for tests, in the form of Jina and vLLM, or in that of TEI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from threading import Lock
from typing import Any

import uvicorn
from nats.aio.client import Client
from nats.errors import NoRespondersError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from adapters.embedding.rerank_service import rerank_subject

MISSING = "Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 99"
"""Answer of TEI to a request in the form of the others."""


def _application(folder: str, key: str) -> Starlette:
    from sentence_transformers import CrossEncoder

    model: Any = CrossEncoder(folder, device="cpu", local_files_only=True)
    alone = Lock()  # the padding of a tokenizer is a state of it

    def scores(query: str, texts: list[str]) -> list[tuple[int, float]]:
        with alone:
            found = model.predict([(query, text) for text in texts], show_progress_bar=False).tolist()
        return sorted(enumerate(found), key=lambda pair: -pair[1])

    async def like_jina(request: Request) -> Response:
        asked = await request.json()
        if request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"detail": "Invalid API key."}, 401)
        if asked["model"] != "lexical-2":
            return JSONResponse({"detail": f"Model {asked['model']} not found."}, 404)
        found = await asyncio.to_thread(scores, asked["query"], asked["documents"])
        results = [
            {"index": index, "relevance_score": score, "document": {"text": asked["documents"][index]}}
            for index, score in found
        ]
        with alone:
            used = len(model.tokenizer(asked["documents"])["input_ids"])
        answer = {"id": "rerank-1", "model": "lexical-2", "usage": {"total_tokens": used}}
        return JSONResponse({**answer, "results": results[: asked["top_n"]]})

    async def like_tei(request: Request) -> Response:
        asked = await request.json()
        if "texts" not in asked:
            return PlainTextResponse(MISSING, 422)
        found = await asyncio.to_thread(scores, asked["query"], asked["texts"])
        return JSONResponse([{"index": index, "score": score} for index, score in found])

    return Starlette(
        routes=[
            Route("/v1/rerank", like_jina, methods=["POST"]),
            Route("/tei/rerank", like_tei, methods=["POST"]),
        ]
    )


async def once_served(nc: Client, model: str) -> None:
    """Wait until the service of a built-in model answers, be it that this is no request."""
    while True:
        with suppress(NoRespondersError):
            await nc.request(rerank_subject(model), b"", timeout=10)
            return


@asynccontextmanager
async def rerank_server(folder: str, key: str = "secret-key") -> AsyncIterator[str]:
    """The address of a server on loopback with this cross-encoder; `/v1` is Jina's form, `/tei` TEI's."""
    config = uvicorn.Config(_application(folder, key), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    [listener] = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
