"""Sends a command with an API key, and prints its outcome: send_by_key.py app.create '{"name": "Guide"}'.

NATS_URL is the server's address without a login, NATS_TOKEN the key. It needs only nats-py.
"""

import asyncio
import json
import os
import sys
import uuid

import nats


async def main(name: str, payload: str) -> None:
    nc = await nats.connect(os.environ["NATS_URL"], token=os.environ["NATS_TOKEN"])
    who = json.loads((await nc.request("$SYS.REQ.USER.INFO")).data)["data"]
    tenant, actor = who["account"], who["user"].partition(".")[0]
    id = str(uuid.uuid4())
    outcomes = await nc.subscribe(f"out.{tenant}.{id}")
    subject = f"cmd.{tenant}.{actor}.{name}"
    await nc.jetstream().publish(subject, payload.encode(), headers={"Headrace-Id": id})
    sys.stdout.write((await outcomes.next_msg(60)).data.decode() + "\n")
    await nc.close()


asyncio.run(main(*sys.argv[1:3]))
