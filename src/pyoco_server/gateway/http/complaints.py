"""What is wrong with a request, in our words: pydantic's are for those who wrote the model."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request, params

_JSON = '{"flow_name": "main", "params": {"x": 2}}'
_JSON_HINT = f"Send JSON: curl -H 'Content-Type: application/json' -d '{_JSON}' …"
_FORM_HINT = "Send a form: curl -F workflow=@flow.yaml -F flow_name=main …"
_EXAMPLES = {
    "flow_name": "main", "tag": "cpu", "tags": '["cpu"]', "params": '{"x": 2}', "timeout_sec": "60",
    "max_attempts": "3", "idempotency_key": "night-2030-01-31", "workflow": "@flow.yaml", "hidden": "true",
    "reason": "maintenance", "limit": "50", "updated_after": "1700000000.5", "since": "1700000000.5", "tail": "100",
    "include_hidden": "true", "follow": "true", "cursor": "<next_cursor of the page before>", "letter_id": "17",
    "before": "17",
}  # fmt: skip
_PLAIN = ("tags", "params", "hidden", "timeout_sec", "max_attempts")
"""What stands in JSON without quotes around it."""
_PHRASES: dict[str, Callable[[Mapping[str, Any], Any], str]] = {
    "missing": lambda _, __: "is missing",
    "string_type": lambda _, given: f"is {kind_of(given)}, not a text",
    "dict_type": lambda _, given: f"is {kind_of(given)}, not an object",
    "model_attributes_type": lambda _, given: f"is {kind_of(given)}, not an object",
    "model_type": lambda _, given: f"is {kind_of(given)}, not an object",
    "list_type": lambda _, given: f"is {kind_of(given)}, not a list",
    "int_type": lambda _, given: f"is {kind_of(given)}, not a whole number",
    "int_from_float": lambda _, __: "is not a whole number",
    "int_parsing": lambda _, __: "is not a whole number",
    "int_parsing_size": lambda _, __: "has too many digits",
    "float_type": lambda _, given: f"is {kind_of(given)}, not a number",
    "float_parsing": lambda _, __: "is not a number",
    "finite_number": lambda _, __: "is not a finite number",
    "bool_type": lambda _, given: f"is {kind_of(given)}, not true or false",
    "bool_parsing": lambda _, __: "is neither true nor false",
    "greater_than": lambda limit, _: f"is not greater than {limit['gt']:g}",
    "greater_than_equal": lambda limit, _: f"is less than {limit['ge']:g}",
    "less_than": lambda limit, _: f"is not less than {limit['lt']:g}",
    "less_than_equal": lambda limit, _: f"is more than {limit['le']:g}",
    "string_too_short": lambda limit, given: "is blank" if not given else f"has under {limit['min_length']} characters",
    "string_too_long": lambda limit, _: f"has more than {limit['max_length']} characters",
    "too_long": lambda limit, _: f"has more than {limit['max_length']} items",
    "string_pattern_mismatch": lambda _, __: "is not of the form that it has here",
    "json_invalid": lambda limit, _: f"is not JSON: {limit['error']}",
}


def complaints(request: Request, errors: list[Any]) -> tuple[list[dict[str, Any]], str]:
    """Return FastAPI's list of what is wrong, in sentences, and the hint: the first of them, and what to do.

    Args:
        request: The request.
        errors: What pydantic has found.
    """
    items = []
    for error in errors:
        item = {key: error[key] for key in ("type", "loc", "msg", "input") if key in error}
        if limits := {name: limit for name, limit in (error.get("ctx") or {}).items() if _is_plain(limit)}:
            item["ctx"] = limits
        if hasattr(item.get("input"), "filename"):
            item["input"] = item["input"].filename
        items.append({**item, "msg": _phrase(request, error)})
    first = errors[0]
    sentence = f"{_name(first)} {items[0]['msg']}"
    return items, f"{sentence}. {_advice(request, first)}".rstrip()


def _phrase(request: Request, error: Mapping[str, Any]) -> str:
    """Say what is wrong with one value: a phrase that follows its name."""
    kind = str(error["type"])
    if tuple(error["loc"]) == ("body",):
        return _of_body(request, error)
    if kind == "json_invalid":
        return f"is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"
    phrase = _PHRASES.get(kind)
    if phrase is not None:
        return phrase(error.get("ctx") or {}, error.get("input"))
    return str(error["msg"]).removeprefix("Value error, ")


def _of_body(request: Request, error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "is missing"
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _is_json(sent):
        return f"was sent as {sent}, not as JSON" if sent else "was sent without saying that it is JSON"
    return f"is {kind_of(error.get('input'))}, not an object"


def _name(error: Mapping[str, Any]) -> str:
    loc = [str(part) for part in error["loc"]]
    if loc[:1] == ["body"] and (len(loc) == 1 or error["type"] == "json_invalid"):
        return "the request's body"
    return ".".join(loc[1:] or loc)


def _advice(request: Request, error: Mapping[str, Any]) -> str:
    if error["type"] == "unknown_word":
        return ""  # the words that there are have been named
    loc = error["loc"]
    name = str(loc[-1]) if len(loc) == 2 else str(loc[1]) if len(loc) > 2 else ""
    example = _EXAMPLES.get(name)
    if loc[0] != "body":
        place = {"query": f"?{name}={example}", "path": str(example)}.get(str(loc[0]), "")
        return f"Write it such as: {place}" if example and place else ""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if _takes_form(request):
        if not sent.startswith(("multipart/form-data", "application/x-www-form-urlencoded")):
            return _FORM_HINT
        return f"Write it such as: -F {name}={example}" if example else ""
    if len(loc) == 1 or error["type"] == "json_invalid":
        return _JSON_HINT.replace(_JSON, "{…}") if _is_optional(request) else _JSON_HINT
    quoted = example if name in _PLAIN else json.dumps(example)
    return f'Write it such as: "{name}": {quoted}' if example else ""


def _takes_form(request: Request) -> bool:
    field = getattr(request.scope.get("route"), "body_field", None)
    return field is not None and isinstance(field.field_info, params.Form)


def _is_optional(request: Request) -> bool:
    """Whether the route takes another body than a submission's."""
    return not str(getattr(request.scope.get("route"), "path", "")).endswith("/runs")


def _is_plain(limit: Any) -> bool:
    """Whether a client may get it: pydantic also tells exceptions and types."""
    return isinstance(limit, str | int | float | bool)


def _is_json(content_type: str) -> bool:
    return content_type.startswith("application/") and content_type.endswith(("/json", "+json"))


def kind_of(value: Any) -> str:
    """Return what a value is, as JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | bytes):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, dict) else "a file" if hasattr(value, "filename") else "something else"
