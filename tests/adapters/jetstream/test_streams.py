from __future__ import annotations

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy
from nats.js.errors import APIError

from adapters.jetstream.streams import COMMANDS, LARGEST, Waiting, set_up
from domain.log import EVENTS


async def test_what_may_wait_is_set_where_the_queue_is_there_already(fresh: Client) -> None:
    js = fresh.jetstream()
    old = (await js.stream_info(COMMANDS)).config
    await js.update_stream(old.evolve(max_msgs=-1, max_bytes=-1, max_msg_size=-1, discard=DiscardPolicy.OLD))
    await js.publish("cmd.default.app.create", b"{}")
    await set_up(js, waiting=Waiting(commands=2, bytes=10**6))
    info = await js.stream_info(COMMANDS)
    assert (info.config.max_msgs, info.config.max_bytes, info.config.max_msg_size) == (2, 10**6, LARGEST)
    assert (info.config.discard, info.state.messages) == (DiscardPolicy.NEW, 1)
    await js.publish("cmd.default.app.create", b"{}")
    with pytest.raises(APIError) as full:
        await js.publish("cmd.default.app.create", b"{}")
    assert full.value.err_code == 10077
    assert (await js.stream_info(COMMANDS)).state.first_seq == 1, "what waits is never dropped for what comes"


async def test_the_log_has_no_limits(fresh: Client) -> None:
    config = (await fresh.jetstream().stream_info(EVENTS)).config
    assert (config.max_msgs, config.max_bytes, config.max_age) == (-1, -1, 0)
