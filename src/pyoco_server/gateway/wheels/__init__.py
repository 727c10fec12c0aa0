"""Wheels as callers see, upload and remove them."""
