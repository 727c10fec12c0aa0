"""Paths that a proxy puts before the server's own, such as ``/pyoco`` of ``https://example.com/pyoco/runs``."""

import re

LONGEST = 200
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
"""No character that a URL, a header or HTML would have to escape, and no empty part."""


def check_prefix(text: str) -> str:
    """Return a prefix in its one form: with a slash before it and none behind; empty for no prefix.

    Raises:
        ValueError: it is not a path that can be put before others.
    """
    prefix = text.strip().removesuffix("/")
    if not prefix:
        return ""
    parts = prefix.split("/")
    if len(prefix) > LONGEST or not _PREFIX.fullmatch(prefix) or "." in parts or ".." in parts:
        raise ValueError(
            f"write a path such as /pyoco or /tools/pyoco: letters, digits and '.', '_', '~', '-' between slashes, at "
            f"most {LONGEST} characters"
        )
    return prefix
