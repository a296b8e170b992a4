"""Choice of the place of blobs: a folder or a bucket when its address is set, else JetStream's object store."""

from __future__ import annotations

from nats.aio.client import Client

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.moved_blobs import MovedBlobs
from adapters.objects.address import objects_at
from adapters.objects.blobs import ObjectBlobs
from handlers.ports.log import BlobPlace, ListedBlobs
from ops.settings import JETSTREAM, Settings


def open_blobs(settings: Settings, nc: Client) -> ListedBlobs:
    """The blobs of the settings, of two places while they move."""
    new, *old = open_places(settings, nc)
    return MovedBlobs(new, *old) if old else new


def open_places(settings: Settings, nc: Client) -> list[BlobPlace]:
    """The place of blobs, and then the one that they are moved from, if there is one."""
    return [_place(url, nc) for url in (settings.blobs_url or JETSTREAM, settings.blobs_old_url) if url]


def _place(url: str, nc: Client) -> BlobPlace:
    if url == JETSTREAM:
        return JetStreamBlobs(nc)
    return ObjectBlobs(objects_at(url, "The store of blobs", make=False))
