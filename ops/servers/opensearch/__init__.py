"""An OpenSearch server for development and tests, without Docker: `make opensearch`."""
