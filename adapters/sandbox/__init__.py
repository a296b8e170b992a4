"""Contained processes: for files, texts and code of strangers."""
