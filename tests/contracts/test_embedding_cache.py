"""Behaviour of every cache of vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256

import numpy as np
import psycopg
import pytest

from adapters.embedding.cache import PostgresEmbeddingCache
from handlers.ports.documents import EmbeddingCache, Vectors
from handlers.ports.log import Unavailable


@pytest.fixture
async def cache(module_database_url: str) -> AsyncIterator[EmbeddingCache]:
    async with PostgresEmbeddingCache(module_database_url) as cache:
        yield cache


def vectors(count: int, dimension: int = 24, seed: int = 0) -> dict[bytes, Vectors]:
    found = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return {sha256(b"%d %d" % (seed, n)).digest(): vector for n, vector in enumerate(found)}


async def test_what_was_put_is_got(cache: EmbeddingCache, tenant: str) -> None:
    assert await cache.get(tenant, "a-model", list(vectors(3))) == {}
    put = vectors(300)
    await cache.put(tenant, "a-model", put)
    got = await cache.get(tenant, "a-model", [*put, b"unknown"])
    assert got.keys() == put.keys()
    for digest, vector in put.items():
        assert (got[digest].dtype, got[digest].shape) == (np.float32, (24,))
        np.testing.assert_array_equal(got[digest], vector.astype(np.float16).astype(np.float32))
    assert await cache.get(tenant, "a-model", []) == {}


async def test_models_and_tenants_are_kept_apart(cache: EmbeddingCache, tenant: str) -> None:
    put = vectors(2)
    await cache.put(tenant, "a-model/float32", put)
    assert await cache.get(tenant, "a-model/bfloat16", list(put)) == {}
    assert await cache.get(f"{tenant}-2", "a-model/float32", list(put)) == {}
    other = {digest: np.ones(7, np.float32) for digest in put}
    await cache.put(tenant, "a-model/bfloat16", other)
    assert {len(vector) for vector in (await cache.get(tenant, "a-model/bfloat16", list(put))).values()} == {7}
    assert {len(vector) for vector in (await cache.get(tenant, "a-model/float32", list(put))).values()} == {24}


async def test_putting_twice_and_at_once(cache: EmbeddingCache, tenant: str) -> None:
    put = vectors(50)
    await asyncio.gather(*(cache.put(tenant, "a-model", put) for _ in range(8)))
    await cache.put(tenant, "a-model", {})
    assert (await cache.get(tenant, "a-model", list(put))).keys() == put.keys()


async def test_what_is_lost_is_put_again(module_database_url: str, tenant: str) -> None:
    put = vectors(2)
    async with PostgresEmbeddingCache(module_database_url) as cache:
        await cache.put(tenant, "a-model", put)
        async with await psycopg.AsyncConnection.connect(module_database_url, autocommit=True) as connection:
            await connection.execute("DROP SCHEMA headrace_cache CASCADE")
        assert await cache.get(tenant, "a-model", list(put)) == {}
        await asyncio.gather(*(cache.put(tenant, "a-model", put) for _ in range(4)))
        assert (await cache.get(tenant, "a-model", list(put))).keys() == put.keys()


async def test_unused_vectors_make_room(module_database_url: str, tenant: str) -> None:
    asked_for = vectors(20, seed=1)
    async with PostgresEmbeddingCache(module_database_url, most=2**20) as cache:
        await cache.put(tenant, "a-model", asked_for)
        for seed in range(2, 42):
            await asyncio.gather(*(cache.put(tenant, "a-model", vectors(50, 384, seed + 100 * n)) for n in range(2)))
            assert (await cache.get(tenant, "a-model", list(asked_for))).keys() == asked_for.keys()
        assert (await cache.get(tenant, "a-model", list(vectors(50, 384, 41)))).keys() == vectors(50, 384, 41).keys()
        assert await cache.get(tenant, "a-model", list(vectors(50, 384, 2))) == {}
    async with await psycopg.AsyncConnection.connect(module_database_url) as connection:
        found = await connection.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
            "WHERE relnamespace = 'headrace_cache'::regnamespace AND relkind = 'r'"
        )
        assert await found.fetchone() < (1.3 * 2**20,)


async def test_a_cache_of_no_size_keeps_nothing(module_database_url: str, tenant: str) -> None:
    async with PostgresEmbeddingCache(module_database_url, most=0) as cache:
        await cache.put(tenant, "a-model", vectors(3))
        assert await cache.get(tenant, "a-model", list(vectors(3))) == {}


async def test_no_server(unused_tcp_port: int, tenant: str) -> None:
    url = f"postgresql://headrace@127.0.0.1:{unused_tcp_port}/headrace"
    async with PostgresEmbeddingCache(url, timeout_s=0.2) as cache:
        with pytest.raises(Unavailable):
            await cache.get(tenant, "a-model", [b"digest"])
        with pytest.raises(Unavailable):
            await cache.put(tenant, "a-model", vectors(1))
