"""Code of strangers, in contained processes: Python, JavaScript and templates."""
