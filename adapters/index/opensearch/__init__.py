"""The index in OpenSearch: a version is an OpenSearch index.

What leads to the versions, what must never come back, and the locks that keep writers apart are a few rows in
PostgreSQL (schema `headrace_opensearch`): OpenSearch has no transactions.
"""

from adapters.index.opensearch.client import Access
from adapters.index.opensearch.index import OpenSearchIndex
from adapters.index.opensearch.store import stored
from adapters.index.opensearch.tables import set_up

__all__ = ["Access", "OpenSearchIndex", "set_up", "stored"]
