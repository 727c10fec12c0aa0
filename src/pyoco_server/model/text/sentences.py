"""Sentences that the server says, in English and Japanese, with the values that they name.

What stands in brackets is left out unless all values in it are known.
"""

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from pyoco_server.model.text.languages import Language

OPTIONAL = re.compile(r"\[([^\]]*)\]")
NAME = re.compile(r"\{(\w+)\}")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_UNITS = {"en": (" s", " min", " h", " d"), "ja": (" 秒", " 分", " 時間", " 日")}
_OF_TENANT = {"en": " of its own tenant", "ja": " (自テナント分)"}
_AND = {"en": ", ", "ja": "、"}


class Moment(float):
    """Unix seconds, shown as a time."""


class Span(float):
    """Seconds, shown as a duration."""


class Offset(float):
    """Seconds by which something is ahead, or behind if negative, shown with its sign."""


class Share(float):
    """A part of a whole, 0 to 1, shown in percent."""


class Size(int):
    """Bytes, shown in MiB or GiB."""


class OfTenant(int):
    """A number of which others' part is not told, shown with that word."""


class Text(NamedTuple):
    """One answer: its sentence, and what to do, in each language."""

    en: str
    en_hint: str
    ja: str
    ja_hint: str

    def of(self, language: Language) -> tuple[str, str]:
        """Give sentence and hint."""
        return (self.ja, self.ja_hint) if language == "ja" else (self.en, self.en_hint)

    def say(self, values: Mapping[str, Any], language: Language, now: float) -> tuple[str, str]:
        """Give sentence and hint with values in their places.

        Args:
            values: By name; ``None`` is not known.
            language: Of the texts; quoted errors stay as they are.
            now: Unix seconds; a time far from it is shown with its date.
        """
        shown = {name: show(value, language, now) for name, value in values.items() if value is not None}
        sentence, hint = self.of(language)
        return _fill(sentence, shown), _fill(hint, shown)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values that are known for programs: times in unix seconds, durations in seconds, sizes in bytes."""
    return {name: _number(value) for name, value in values.items() if value is not None}


def show(value: Any, language: Language, now: float) -> str:
    """Give a value as it stands in a sentence."""
    if isinstance(value, Moment):
        near = abs(now - value) < _DAY / 2
        return time.strftime("%H:%M:%S UTC" if near else "%Y-%m-%d %H:%M UTC", time.gmtime(value))
    if isinstance(value, Span):
        return _duration(value, _UNITS[language])
    if isinstance(value, Offset):
        return f"{value:+.1f}{_UNITS[language][0]}"
    if isinstance(value, Share):
        return f"{value:.0%}"
    if isinstance(value, Size):
        return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    return _others(value, language)


def _others(value: Any, language: Language) -> str:
    if isinstance(value, OfTenant):
        return f"{int(value)}{_OF_TENANT[language]}"
    return _AND[language].join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return float(value)
    return int(value) if isinstance(value, (Size, OfTenant)) else value


def _fill(text: str, values: dict[str, str]) -> str:
    kept = OPTIONAL.sub(lambda part: part[1] if set(NAME.findall(part[1])) <= values.keys() else "", text)
    return kept.format_map(defaultdict(lambda: "?", values))


def _duration(seconds: float, units: tuple[str, ...]) -> str:
    second, minute, hour, day = units
    whole = round(seconds)
    if seconds < 10:  # where a tenth matters
        return f"{seconds:.1f}{second}"
    if whole < _MINUTE:
        return f"{whole}{second}"
    if whole < _HOUR:
        return f"{whole // _MINUTE}{minute} {whole % _MINUTE}{second}"
    if whole < _DAY:
        return f"{whole // _HOUR}{hour} {whole % _HOUR // _MINUTE}{minute}"
    return f"{whole // _DAY}{day} {whole % _DAY // _HOUR}{hour}"
