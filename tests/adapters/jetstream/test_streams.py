from __future__ import annotations

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy
from nats.js.errors import APIError

from adapters.jetstream.streams import ACTORS_AFTER, COMMANDS, DUPLICATE_WINDOW_S, LARGEST, Waiting, set_up
from domain.log import EVENTS


async def test_what_may_wait_is_set_where_the_queue_is_there_already(fresh: Client) -> None:
    js = fresh.jetstream()
    old = (await js.stream_info(COMMANDS)).config
    unlimited = {"max_msgs": -1, "max_bytes": -1, "max_msg_size": -1, "max_msgs_per_subject": -1}
    await js.update_stream(
        old.evolve(
            **unlimited, discard=DiscardPolicy.OLD, discard_new_per_subject=False, duplicate_window=300, metadata={}
        )
    )
    await js.publish("cmd.default.anon.app.create", b"{}")
    await set_up(js, waiting=Waiting(commands=2, bytes=10**6, per_subject=7))
    info = await js.stream_info(COMMANDS)
    assert (info.config.max_msgs, info.config.max_bytes, info.config.max_msg_size) == (2, 10**6, LARGEST)
    assert (info.config.max_msgs_per_subject, info.config.discard_new_per_subject) == (7, True)
    assert (info.config.discard, info.config.duplicate_window) == (DiscardPolicy.NEW, DUPLICATE_WINDOW_S)
    assert (info.state.messages, (info.config.metadata or {})[ACTORS_AFTER]) == (1, "1")
    await js.publish("cmd.default.anon.app.create", b"{}")
    with pytest.raises(APIError) as full:
        await js.publish("cmd.default.anon.app.create", b"{}")
    assert full.value.err_code == 10077
    assert (await js.stream_info(COMMANDS)).state.first_seq == 1, "what waits is never dropped for what comes"


async def test_the_log_has_no_limits(fresh: Client) -> None:
    config = (await fresh.jetstream().stream_info(EVENTS)).config
    assert (config.max_msgs, config.max_bytes, config.max_age) == (-1, -1, 0)


async def test_one_command_of_one_actor_has_a_share_of_the_queue(fresh: Client) -> None:
    """And so has a tenant: this share for each of the subjects that it may send to."""
    js = fresh.jetstream()
    await set_up(js, waiting=Waiting(per_subject=2))
    for _ in range(2):
        await js.publish("cmd.acme.s_crm.app.create", b"{}")
    with pytest.raises(APIError, match="per subject") as full:
        await js.publish("cmd.acme.s_crm.app.create", b"{}")
    assert full.value.err_code == 10077
    for subject in ("cmd.acme.s_crm.app.delete", "cmd.acme.s_web.app.create", "cmd.other.s_crm.app.create"):
        await js.publish(subject, b"{}")


async def test_setting_up_again_changes_nothing(fresh: Client) -> None:
    """A worker may not change streams."""
    js = fresh.jetstream()
    before = (await js.stream_info(COMMANDS)).config
    await js.publish("cmd.acme.s_crm.app.create", b"{}")
    await set_up(js)
    assert (await js.stream_info(COMMANDS)).config == before
