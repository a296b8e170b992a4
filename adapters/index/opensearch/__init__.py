"""The index in OpenSearch: a version is an OpenSearch index.

The rows that lead to the versions, what must never come back, and the locks that keep writers apart are a few rows in
PostgreSQL (schema `headrace_opensearch`): OpenSearch has no transactions.
"""
