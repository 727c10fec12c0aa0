"""Which language a reader wants."""

from typing import Literal

Language = Literal["en", "ja"]


def preferred(accept_language: str) -> Language:
    """Choose by an ``Accept-Language`` header; English where it asks for neither.

    Args:
        accept_language: Such as ``ja,en;q=0.8``.
    """
    best, language = 0.0, "en"
    for part in accept_language.split(","):
        name, _, options = part.partition(";")
        wanted = name.strip().lower().split("-")[0]
        quality = _quality(options)
        if wanted in ("en", "ja") and quality > best:
            best, language = quality, wanted
    return "ja" if language == "ja" else "en"


def _quality(options: str) -> float:
    name, _, value = options.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
