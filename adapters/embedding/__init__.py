"""Embedding and reranking models, and the services that share them."""
