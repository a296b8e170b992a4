"""Upkeep: setup, verify, rebuild, index, restore, doctor."""
