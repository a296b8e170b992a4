"""NATS JetStream: the log, the bus, the blobs and the snapshots."""

from adapters.imports import replaced

with replaced({"aiohttp": None}):  # for WebSockets, 10 MB in every process; see `nats_py.connect`
    import nats.aio.transport  # noqa: F401
