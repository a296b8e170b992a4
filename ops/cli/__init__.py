"""The command line: `headrace`. Each file holds a group of commands and registers them when imported."""

from ops.cli import (
    archive,
    blobs,
    bus,
    dead,
    deploy,
    index,
    limits,
    nats,
    postgres,
    quarantine,
    rebuild,
    run,
    secret_key,
    verify,
    viewer,
)
from ops.cli.frame import EXPECTED, app, main

__all__ = [
    "EXPECTED",
    "app",
    "archive",
    "blobs",
    "bus",
    "dead",
    "deploy",
    "index",
    "limits",
    "main",
    "nats",
    "postgres",
    "quarantine",
    "rebuild",
    "run",
    "secret_key",
    "verify",
    "viewer",
]
