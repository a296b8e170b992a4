"""Acknowledged publishes."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from adapters.jetstream.publisher import Ack, Publisher
from domain.aggregate import new_id
from domain.log import EVENTS


async def test_a_message_is_stored_once(nc: Client, tenant: str) -> None:
    publisher, subject, headers = Publisher(nc, EVENTS, timeout_s=5.0), f"evt.{tenant}.app.a", {"Nats-Msg-Id": new_id()}
    first = await publisher.publish(subject, b"[]", headers)
    assert not first.duplicate
    assert await publisher.publish(subject, b"[]", headers) == Ack(first.sequence, duplicate=True)
    stored = await nc.jetstream().get_msg(EVENTS, first.sequence)
    assert (stored.subject, stored.data) == (subject, b"[]")


async def test_each_of_many_at_once_gets_its_own_answer(nc: Client, tenant: str) -> None:
    publisher = Publisher(nc, EVENTS, timeout_s=5.0)
    subjects = [f"evt.{tenant}.app.{number}" for number in range(50)]
    acks = await asyncio.gather(*(publisher.publish(subject, b"[]", {}) for subject in subjects))
    stored = [await nc.jetstream().get_msg(EVENTS, ack.sequence) for ack in acks]
    assert [message.subject for message in stored] == subjects


async def test_a_refusal_is_an_error_of_the_server(nc: Client, tenant: str) -> None:
    expected = {"Nats-Expected-Last-Subject-Sequence": "7"}
    with pytest.raises(APIError) as refused:
        await Publisher(nc, EVENTS, timeout_s=5.0).publish(f"evt.{tenant}.app.a", b"[]", expected)
    assert refused.value.err_code in (10071, 10164)


async def test_a_subject_of_another_stream_is_refused(nc: Client, tenant: str) -> None:
    with pytest.raises(APIError):
        await Publisher(nc, EVENTS, timeout_s=5.0).publish(f"out.{tenant}.{new_id()}", b"{}", {})


async def test_without_a_stream_there_is_no_answer(nc: Client, tenant: str) -> None:
    publisher = Publisher(nc, EVENTS, timeout_s=0.2)
    with pytest.raises(NoStreamResponseError):
        await publisher.publish(f"nothing.{tenant}", b"[]", {})
    await nc.subscribe(f"silent.{tenant}")
    with pytest.raises(nats.errors.TimeoutError):
        await publisher.publish(f"silent.{tenant}", b"[]", {})
