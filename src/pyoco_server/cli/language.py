"""The language of whoever sits at the terminal."""

import os

from pyoco_server.model.text.languages import Language


def terminal_language() -> Language:
    """Read the locale as POSIX programs do: the first of these variables that is set decides."""
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "ja" if next(filter(None, names), "").lower().startswith("ja") else "en"
