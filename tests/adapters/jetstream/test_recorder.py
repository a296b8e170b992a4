"""The library's own test cases for recorders, on the event store."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from eventsourcing.tests import persistence

from adapters.jetstream import codec
from ops.servers.embedded import EmbeddedNats
from tests.adapters.jetstream.recorder import (
    Connection,
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    Recorded,
)


class OnJetStream:
    """Each test has a tenant and a connection of its own."""

    @pytest.fixture(autouse=True)
    def connected(self, lone_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setitem(codec.event_types(), Recorded.TOPIC, Recorded)
        self.tenant = f"t{uuid4().hex}"
        self.connection = Connection(lone_nats.url)
        yield
        self.connection.close()

    def new_originator_id(self) -> str:
        return str(uuid4())


class TestAggregateRecorder(OnJetStream, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> JetStreamAggregateRecorder:
        return JetStreamAggregateRecorder(self.connection, self.tenant)


class TestApplicationRecorder(OnJetStream, persistence.ApplicationRecorderTestCase[JetStreamApplicationRecorder]):
    def create_recorder(self) -> JetStreamApplicationRecorder:
        return JetStreamApplicationRecorder(self.connection, self.tenant)

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()

    def test_two_recorders_number_alike(self) -> None:
        one, other = self.create_recorder(), self.create_recorder()
        ids = [self.new_originator_id() for _ in range(3)]
        for recorder, id in zip((one, other, one), ids, strict=True):
            recorder.insert_events([persistence.StoredEvent(id, 1, "topic", b"state")])
        assert [event.originator_id for event in other.select_notifications(1, 10)] == ids
        assert one.select_notifications(1, 10) == other.select_notifications(1, 10)
