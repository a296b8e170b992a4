"""Embedded servers and the processes they run in."""
