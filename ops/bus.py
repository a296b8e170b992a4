"""The bus of the settings."""

from __future__ import annotations

from adapters.jetstream.client import Client
from ops.blob_choice import open_blobs
from ops.settings import Settings


async def connect(settings: Settings) -> Client:
    """Connect to NATS at the address of the settings, with their tenant and their blobs. Raises: Unreachable."""
    client = await Client.connect(
        settings.nats_url, settings.tenant, credentials=settings.nats_credentials, ca=settings.nats_ca
    )
    client.blobs = open_blobs(settings, client.connection)
    return client
