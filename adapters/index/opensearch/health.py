"""The health of the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.index.opensearch.client import Access, connected, waiting


@dataclass(frozen=True, slots=True)
class Health:
    """`status` is green, yellow (copies are missing) or red (segments are missing)."""

    version: str
    status: str
    nodes: int
    unassigned: int
    knn: bool
    """True when every node can search vectors."""


async def health(access: Access) -> Health:
    """Raises: Unavailable."""
    async with connected(access) as client:
        with waiting():
            version = (await client.info())["version"]["number"]
            cluster = await client.cluster.health()
            plugins = await client.nodes.info(metric="plugins")
    names = [{plugin["name"] for plugin in node["plugins"]} for node in plugins["nodes"].values()]
    knn = all(any("knn" in name.lower() for name in of) for of in names)
    return Health(version, cluster["status"], cluster["number_of_nodes"], cluster["unassigned_shards"], knn)
