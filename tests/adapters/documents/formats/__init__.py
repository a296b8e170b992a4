"""The formats of files: documents with known text, hostile ones, and how much of them is read."""
