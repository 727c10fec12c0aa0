"""Texts: clean, bounded, in two languages, on one line."""
