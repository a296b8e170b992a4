"""Toolsets of kind `openapi`: a document is read in a contained process, its operations are called by the guard."""
