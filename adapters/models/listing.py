"""The lists of models that servers give: a path and a reader for each kind."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx2
import orjson

from adapters.egress.client import Egress
from adapters.models.faults import fault_of
from adapters.models.registry import Registered, Unseal
from adapters.models.server import address
from handlers.ports.models import ListedModel, Listing, ModelError

WITHIN_S = 15.0
"""Maximum wait for a list, in seconds."""

LONGEST_NAME = 255
"""Maximum length of the name of a model, in characters."""

LARGEST = 100_000_000
"""Largest number of tokens, and largest limit, that is believed."""

ANTHROPIC_VERSION = "2023-06-01"


class List(NamedTuple):
    """The list of one kind of server: its `path` after the `root` of a base URL, the `headers` with a key, and how it
    is `read`; a list is a JSON object with the models under `models`, or an array."""

    path: str
    models: str
    root: Callable[[str], str]
    headers: Callable[[str], dict[str, str]]
    read: Callable[[dict[str, Any]], ListedModel]


class TenantListings:
    """As the port."""

    def __init__(self, registered: Registered, unseal: Unseal, egress: Egress, within_s: float = WITHIN_S) -> None:
        self._registered = registered
        self._unseal = unseal
        self._egress = egress
        self._within_s = within_s

    async def get(self, tenant: str, provider: str) -> Mapping[str, Listing | ModelError]:
        found = await self._registered(tenant, provider)
        if found is None or found.deleted:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        keys = {each["name"]: self._unseal(tenant, each["sealed_key"]) for each in found.credentials} or {"": ""}
        answers = await asyncio.gather(*(self._ask(tenant, found.kind, found.base_url, key) for key in keys.values()))
        return dict(zip(keys, answers, strict=True))

    async def _ask(self, tenant: str, kind: str, base_url: str, key: str) -> Listing | ModelError:
        try:
            return await self._list(tenant, LISTS[kind], base_url, key)
        except ModelError as error:
            return error

    async def _list(self, tenant: str, of: List, base_url: str, key: str) -> Listing:
        """Raises: ModelError."""
        where = address(base_url)
        if not (key.isascii() and key.isprintable()):
            raise ModelError(
                "unauthorized", "The provider's key has characters that cannot be sent; register it again."
            )
        base, mark, query = base_url.partition("?")
        url = f"{of.root(base.rstrip('/'))}{of.path}{mark}{query}"
        headers = {"api-key": key} if key and "api-version=" in query else of.headers(key)
        began = time.perf_counter()
        async with self._egress.client(tenant, connect_s=5) as client:
            try:
                async with asyncio.timeout(self._within_s):
                    response = await client.get(url, headers=headers)
            except TimeoutError:
                raise ModelError("timeout", f"{where} did not list its models within {self._within_s:g} s.") from None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                internal = client.internal
                raise fault_of(error, where, key, answering=False, begun=False, internal=internal).error from None
        if response.status_code >= 300:
            raise _of_status(response.status_code, where)
        took = round((time.perf_counter() - began) * 1000, 3)
        return Listing(_server(response.url), _read(of, response.content, where), took, limits(response.headers))


def _of_status(status: int, where: str) -> ModelError:
    codes = {401: "unauthorized", 402: "payment_required", 403: "unauthorized", 404: "not_found", 429: "rate_limited"}
    code = codes.get(status, "server_error" if status >= 500 else "bad_request")
    return ModelError(code, f"{where} does not list its models: it answers with status {status}.")


def _server(url: httpx2.URL) -> str:
    return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _read(of: List, body: bytes, where: str) -> Sequence[ListedModel]:
    """The models, each once. Raises: ModelError for another structure."""
    try:
        data = orjson.loads(body)
        entries = data if isinstance(data, list) else data[of.models] or []
        found = [of.read(entry) for entry in entries]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ModelError("server_error", f"{where} answers with something that is no list of models.") from None
    fit = [each for each in found if 0 < len(each.name) <= LONGEST_NAME and each.name.isprintable()]
    return list({each.name: each for each in fit}.values())


def _openai(entry: dict[str, Any]) -> ListedModel:
    """OpenAI, vLLM, llama.cpp, LM Studio, Groq, Mistral, OpenRouter and Together give different facts."""
    best, meta = entry.get("top_provider") or {}, entry.get("meta") or {}
    windows = *(entry.get(name) for name in _WINDOWS), best.get("context_length"), meta.get("n_ctx")
    outputs = entry.get("max_completion_tokens"), entry.get("max_output_tokens"), best.get("max_completion_tokens")
    name = str(entry["id"])
    return ListedModel(name, _TYPES.get(str(entry.get("type"))) or _type(name), _first(windows), _first(outputs))


_WINDOWS = ("max_model_len", "context_window", "context_length", "max_context_length")

_TYPES = {"chat": "chat", "llm": "chat", "vlm": "chat", "language": "chat"}
_TYPES |= dict.fromkeys(("embedding", "embeddings"), "embedding") | {"rerank": "rerank", "moderation": "moderation"}

_NAMED = {
    "embedding": r"embed|\bbge-(?!reranker)|\be5-",
    "rerank": r"rerank",
    "transcription": r"whisper|transcribe",
    "speech": r"\btts\b",
    "moderation": r"moderation",
}


def _type(name: str) -> str | None:
    """The type of a model by its name, where that tells."""
    return next((kind for kind, pattern in _NAMED.items() if re.search(pattern, name.lower())), None)


def _ollama(entry: dict[str, Any]) -> ListedModel:
    families = (entry.get("details") or {}).get("families") or ()
    name = str(entry.get("name") or entry["model"])
    return ListedModel(name, "embedding" if any("bert" in str(each) for each in families) else _type(name))


def _anthropic(entry: dict[str, Any]) -> ListedModel:
    window, output = entry.get("max_input_tokens"), entry.get("max_tokens")
    return ListedModel(str(entry["id"]), "chat", _first([window]), _first([output]))


def _gemini(entry: dict[str, Any]) -> ListedModel:
    does = entry.get("supportedGenerationMethods") or ()
    kind = "chat" if "generateContent" in does else "embedding" if "embedContent" in does else None
    window, output = entry.get("inputTokenLimit"), entry.get("outputTokenLimit")
    return ListedModel(str(entry["name"]).removeprefix("models/"), kind, _first([window]), _first([output]))


def _first(numbers: Sequence[object]) -> int | None:
    """The first that is a number of tokens."""
    return next((each for each in numbers if type(each) is int and 0 < each <= LARGEST), None)


LIMITS = {
    "requests_per_minute": ("x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"),
    "tokens_per_minute": ("x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"),
    "input_tokens_per_minute": ("anthropic-ratelimit-input-tokens-limit",),
    "output_tokens_per_minute": ("anthropic-ratelimit-output-tokens-limit",),
}
"""Headers by the limit that they state."""


def limits(headers: Mapping[str, str]) -> dict[str, int]:
    """The limits that the headers of an answer state."""
    return dict(_limits(headers))


def _limits(headers: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for limit, names in LIMITS.items():
        for name in names:
            stated = headers.get(name, "")
            if re.fullmatch("[0-9]{1,12}", stated):
                yield limit, int(stated)
                break


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


_VERSION = re.compile(r"/v\d+(alpha|beta)?\d*$")


def _of_openai(base: str) -> str:
    return base.removesuffix("/chat/completions").removesuffix("/responses")


LISTS = {
    "openai": List("/models", "data", _of_openai, _bearer, _openai),
    "openai_responses": List("/models", "data", _of_openai, _bearer, _openai),
    "ollama": List(
        "/api/tags",
        "models",
        lambda base: base.removesuffix("/api/chat").removesuffix("/v1").removesuffix("/api"),
        _bearer,
        _ollama,
    ),
    "anthropic": List(
        "/v1/models",
        "data",
        lambda base: base.removesuffix("/messages").removesuffix("/v1"),
        lambda key: {"anthropic-version": ANTHROPIC_VERSION, **({"x-api-key": key} if key else {})},
        _anthropic,
    ),
    "gemini": List(
        "/models",
        "models",
        lambda base: base if _VERSION.search(base) else f"{base}/v1beta",
        lambda key: {"x-goog-api-key": key} if key else {},
        _gemini,
    ),
}
