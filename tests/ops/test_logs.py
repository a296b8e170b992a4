from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ops import logs
from ops.settings import Settings


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(Settings.load(log_level="info"), stream)
    yield stream
    root.handlers, root.level = before[0], before[1]
    structlog.reset_defaults()


def last(stream: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return line


def test_json_with_what_is_bound(written: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(tenant="t", correlation="c", command="id"):
        structlog.get_logger("here").info("accepted", sequence=3)
    line = last(written)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "accepted",
        "sequence": 3,
        "level": "info",
        "logger": "here",
        "tenant": "t",
        "correlation": "c",
        "command": "id",
    }


def test_the_standard_library_logs_the_same_way(written: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(tenant="t"):
        logging.getLogger("theirs").warning("slow %s", "disk")
    assert (
        last(written).items() >= {"event": "slow disk", "logger": "theirs", "level": "warning", "tenant": "t"}.items()
    )


def test_the_level_is_kept(written: io.StringIO) -> None:
    structlog.get_logger().debug("unseen")
    logging.getLogger("x").debug("unseen")
    assert written.getvalue() == ""


@pytest.mark.parametrize("name", ["key", "api_key", "apikey", "provider_key", "secret", "password", "Authorization"])
def test_secrets_are_redacted_at_any_depth(written: io.StringIO, name: str) -> None:
    structlog.get_logger().info("sent", **{name: "s3cret"}, payload={"list": [{name: "s3cret"}]})
    assert "s3cret" not in written.getvalue()
    assert last(written)[name] == logs.REDACTED


def test_passwords_and_tokens_in_texts_are_redacted(written: io.StringIO) -> None:
    try:
        raise ValueError("no postgresql://headrace:s3cret@host/db with Bearer s3cret")
    except ValueError:
        structlog.get_logger().exception("failed", url="nats://user:s3cret@host:4222")
    line = last(written)
    assert "s3cret" not in written.getvalue()
    assert line["url"] == f"nats://user:{logs.REDACTED}@host:4222"
    assert "ValueError" in line["exception"]


def test_other_names_are_left_alone(written: io.StringIO) -> None:
    structlog.get_logger().info("x", monkey="banana", keys=3, tokens=12)
    assert last(written).items() >= {"monkey": "banana", "keys": 3, "tokens": 12}.items()
    assert "url" not in last(written)


def test_people_get_lines_to_read(written: io.StringIO) -> None:
    logs.configure(Settings.load(log_format="human"), written)
    structlog.get_logger().info("accepted", sequence=3)
    assert "accepted" in written.getvalue()
    assert "sequence=3" in written.getvalue()
    with pytest.raises(json.JSONDecodeError):
        last(written)
