"""The names of the GenAI conventions v1.41.1, and what Traceloop and OpenInference call the same."""

from __future__ import annotations

from projections.traces import attributes
from tests.projections.history import TOKENS
from tests.projections.traces.test_traces import HIT

OF_ANSWER = {"response_id": "chatcmpl-1", "response_model": "tiny-1", "finish_reason": "stop", "first_token_ms": 250.0}


def test_a_chat_has_the_required_and_the_recommended_ones_that_are_known() -> None:
    sent = {"messages": [{"role": "user", "content": "secret"}], "max_tokens": 64}
    sent |= {"parameters": {"temperature": 0.5, "seed": 7, "n": 2, "user": "ada"}}
    found = attributes.requested("chat", "lab", "tiny", "models.example.com:443", sent)
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lab",
        "gen_ai.output.type": "text",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True,
        "server.address": "models.example.com",
        "server.port": 443,
    }
    answered = attributes.completed("chat", TOKENS, **OF_ANSWER)  # type: ignore[arg-type]
    assert answered == {
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "tiny-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 90,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 3,
    }
    both = {**found, **answered}
    assert attributes.exported("chat", "chat tiny", both) == both | {
        "llm.request.type": "chat",
        "llm.model_name": "tiny",
        "llm.provider": "lab",
        "openinference.span.kind": "LLM",
        "llm.token_count.prompt": 90,
        "llm.token_count.completion": 12,
        "llm.token_count.total": 102,
        "llm.token_count.prompt_details.cache_read": 64,
        "llm.token_count.completion_details.reasoning": 3,
    }


def test_what_was_written_into_a_cache_has_its_old_and_its_new_name() -> None:
    found = attributes.completed("chat", TOKENS | {"cache_write_tokens": 5}, **OF_ANSWER)  # type: ignore[arg-type]
    found = attributes.exported("chat", "chat tiny", found)
    assert found["gen_ai.usage.cache_creation.input_tokens"] == found["gen_ai.usage.cache_write.input_tokens"] == 5


def test_an_embedding_has_no_output() -> None:
    found = attributes.requested("embedding", "builtin", "tiny", "", {"texts": 1, "tokens": 4})
    found |= attributes.completed("embedding", TOKENS, **OF_ANSWER | {"first_token_ms": None})  # type: ignore[arg-type]
    found = attributes.exported("embedding", "embeddings tiny", found)
    assert found["gen_ai.operation.name"] == "embeddings"
    assert found["embedding.model_name"] == "tiny"
    assert found["openinference.span.kind"] == "EMBEDDING"
    assert not {"gen_ai.usage.output_tokens", "server.address", "gen_ai.output.type"} & found.keys()


def test_a_rerank_has_its_own_names_and_the_best_of_its_segments() -> None:
    request = {"query": "secret", "segments": ["a", "b", "c"]}
    found = attributes.requested("rerank", "lab", "tiny", "models.example.com:443", request)
    found |= attributes.completed("rerank", TOKENS, **OF_ANSWER | {"finish_reason": None, "first_token_ms": None})  # type: ignore[arg-type]
    found |= attributes.reranked(["a", "b", "c"], "[0.1, 0.9, 0.5]")
    assert attributes.exported("rerank", "rerank tiny", found) == {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": "lab",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "tiny-1",
        "gen_ai.usage.input_tokens": 90,
        "llm.token_count.prompt": 90,
        "server.address": "models.example.com",
        "server.port": 443,
        "llm.request.type": "rerank",
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": "tiny",
        "reranker.top_k": 3,
        "reranker.output_documents.0.document.id": "b",
        "reranker.output_documents.0.document.score": 0.9,
        "reranker.output_documents.1.document.id": "c",
        "reranker.output_documents.1.document.score": 0.5,
        "reranker.output_documents.2.document.id": "a",
        "reranker.output_documents.2.document.score": 0.1,
    }
    assert attributes.reranked([], "") == {}
    assert len(attributes.reranked([str(number) for number in range(99)], str([0.5] * 99))) == 40


def test_a_retrieval_names_the_segments_that_were_kept_by_rank() -> None:
    hits = [HIT | {"segment": "second", "rank": 2}, HIT, HIT | {"segment": "none", "rank": None}]
    found = attributes.exported("retrieval", "retrieval", attributes.retrieval(["a", "b"], 4), hits)
    assert found["gen_ai.data_source.id"] == "a,b"
    assert found["gen_ai.retrieval.top_k"] == 4
    documents = {name: value for name, value in found.items() if name.endswith("document.id")}
    assert list(documents.values()) == ["segment-1", "second"]


def test_a_server_of_ipv6_has_its_address_without_brackets() -> None:
    found = attributes.requested("chat", "lab", "tiny", "[::1]:8000", {})
    assert (found["server.address"], found["server.port"]) == ("::1", 8000)
