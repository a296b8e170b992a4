"""Segmentation of texts."""
