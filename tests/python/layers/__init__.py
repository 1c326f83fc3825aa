"""Layers written in Python, one theme a file."""
