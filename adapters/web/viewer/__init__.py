"""The viewer: pages over the read tables and the log, by Starlette and Jinja2, useful without script."""
