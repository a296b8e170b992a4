"""The index in OpenSearch: a versioned OpenSearch index for the vectors of each embedding model.

What routes writers and searches to the versions, what must never come back, and the locks that keep writers apart are
a few rows in PostgreSQL (schema `headrace_opensearch`): OpenSearch has no transactions. Changing a route is the swap
of an alias.
"""

from adapters.opensearch.client import Access
from adapters.opensearch.index import OpenSearchIndex
from adapters.opensearch.routes import set_up

__all__ = ["Access", "OpenSearchIndex", "set_up"]
