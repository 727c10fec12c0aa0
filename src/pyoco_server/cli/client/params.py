"""Params from the command line: a file, a JSON object, and one at a time."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from pyoco_server.cli.output import print_note
from pyoco_server.errors import InvalidInput
from pyoco_server.model.text.jsontext import check_finite, keeps, read_json

_EXAMPLE = """Such as: --params '{"x": 1}'"""
_NEARLY_JSON = {"True": "true", "False": "false", "None": "null", "NaN": None, "Infinity": None, "-Infinity": None}
"""Words of Python that JSON writes otherwise, or does not have."""
_SHORT = 80
_LIKE_AN_ID = re.compile(r"[0-9]{3,}[eE][0-9]+|[0-9]+[eE]0[0-9]+")
"""A number that nobody writes so, but that a hash may look like."""


def read_params(options: dict[str, Any]) -> dict[str, Any]:
    """Merge the three sources; the later one wins.

    Args:
        options: ``params_file``, ``params`` and ``param`` of a command.

    Raises:
        InvalidInput: one of them cannot be read, or not as it was typed.
    """
    params: dict[str, Any] = {}
    if options["params_file"]:
        params.update(_read_file(options["params_file"]))
    if options["params"] is not None:
        params.update(_object(options["params"]))
    for text in options["param"]:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidInput(f"--param {text!r} is not KEY=VALUE", hint="Such as: --param x=1 --param name=alice")
        params[key.strip()] = _json_or_text(key.strip(), value.strip())
    return params


def _read_file(path: Path) -> dict[str, Any]:
    try:
        value = _read_text(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidInput(f"--params-file {path} cannot be read: {error.strerror}") from None
    except InvalidInput as error:
        raise InvalidInput(f"--params-file {path}: {error.message}", hint=error.hint) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidInput(f"--params-file {path} is neither JSON nor YAML: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"--params-file {path} holds no mapping", hint='Such as: {"x": 1} or x: 1')
    return value


def _read_text(text: str) -> Any:
    try:
        return read_json(text)  # first, because YAML reads 1e5 as text and halves of surrogate pairs one by one
    except json.JSONDecodeError:
        return yaml.safe_load(text)


def _object(text: str) -> dict[str, Any]:
    try:
        value = read_json(text)
    except InvalidInput as error:
        raise InvalidInput(f"--params: {error.message}", hint=error.hint) from None
    except ValueError as error:
        raise InvalidInput(f"--params is not JSON: {error}", hint=_EXAMPLE) from None
    if not isinstance(value, dict):
        raise InvalidInput("--params is not a JSON object", hint=_EXAMPLE)
    return value


def _json_or_text(key: str, text: str) -> Any:
    """Read a value as JSON if it is that, else as text.

    Raises:
        InvalidInput: it is a number of which JSON would keep a part only.
    """
    quoted = f"--param {shlex.quote(f'{key}={json.dumps(text[:_SHORT], ensure_ascii=False)}')}"
    if text in _NEARLY_JSON:  # Python reads NaN and Infinity, but they are not JSON: here they are text
        right = _NEARLY_JSON[text]
        print_note(f"--param {key} is the text {text!r}" + (f"; JSON has {right} for it" if right else ""))
        return text
    try:
        value = read_json(text)
    except InvalidInput as error:
        raise InvalidInput(f"--param {key}: {error.message}", hint=error.hint) from None
    except ValueError:
        return text
    if not keeps(text, value):
        raise InvalidInput(
            f"--param {key}={text} is a number that JSON cannot keep: it would become {_shown(value)}",
            hint=f"For a text, quote it: {quoted}",
        )
    if _LIKE_AN_ID.fullmatch(text):
        print_note(f"--param {key} is the number {_shown(value)}; for a text, quote it: {quoted}")
    if isinstance(value, dict | list):
        check_finite(value, f"--param {key}")
    return value


def _shown(value: Any) -> str:
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, repr(value))
