"""The engine: read models, and the fold that applies messages to them."""
