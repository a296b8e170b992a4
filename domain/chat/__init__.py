"""Apps, conversations and their messages."""
