"""The viewer: pages over the read tables and the log, by Starlette and Jinja2, which work without scripts."""
