"""The search index: versions over PostgreSQL or OpenSearch."""
