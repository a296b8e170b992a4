"""Datasets, documents, segments and what is retrieved from them."""
