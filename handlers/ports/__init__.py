"""The ports: what the handlers need of the world, a file a subject."""
