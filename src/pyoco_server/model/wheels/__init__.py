"""Wheels: file names, entries, and what is told of them."""
