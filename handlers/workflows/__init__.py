"""Runs of workflows: the owner of a run, and one file for each kind of outside call."""
