"""Chat models and rerankers."""
