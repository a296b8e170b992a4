"""The file formats: how the bytes of each become blocks of text.

This package runs in the child processes of `adapters.documents.extract`; it stays light and knows nothing of the ports.
"""
