"""What a text in a task's ``inputs`` stands for: a reference, or itself.

The references are pyoco's: ``$node.<name>.output[.<field>…]``, ``$ctx.params.<key>`` and ``$env.<NAME>``. pyoco looks
at an input only when its task starts, fails there on every other text that begins with ``$``, and passes on what stands
inside a list or mapping as it is. Here a flow is read before it is run, and three things are added: references are
found inside lists and mappings too, ``$ctx.params.<key>.<key>`` leads into nested params, and a text may begin with a
``$``: where no letter, ``_`` or ``{`` follows it, as in ``$100``, and as ``$$name`` everywhere else.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Any

from pyoco_server.model.text.spelling import normal_name

_BEGINS = ("$node.", "$ctx.", "$env.")
_NAMED = re.compile(r"\$(?:node|ctx|env)\b")
_FORMS = "References are $node.<name>.output, $ctx.params.<key> and $env.<NAME>."
_PARAMS = {"params", "param", "flow", "defaults", "inputs", "input"}
_NODES = {"nodes", "results", "result", "tasks", "task", "outputs", "output"}


class BadReference(ValueError):
    """A text that begins like a reference and is none.

    Args:
        message: What is wrong with it.
        hint: What to write instead.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class NodeOutput:
    """``$node.<name>.output``, and the fields that lead into it."""

    node: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Param:
    """``$ctx.params.<key>``, where the key may have dots."""

    key: str


@dataclass(frozen=True)
class EnvVar:
    """``$env.<NAME>``."""

    name: str


Reference = NodeOutput | Param | EnvVar


def read_text(text: str) -> Reference | str:
    """Return what a text in ``inputs`` stands for: the reference that it is, or the text that the task gets.

    Raises:
        BadReference: it begins like a reference, and is none.
    """
    if not text.startswith("$"):
        _refuse_template(text)
        return text
    if text.startswith("$$"):
        return text[1:]
    if text.startswith("${"):
        inner = text[2:].partition("}")[0]
        hint = f"Write ${inner}" if f"${inner}".startswith(_BEGINS) else _FORMS
        raise BadReference("references have no braces", f"{hint} {_literally(text)}")
    if not f"_{text[1:2]}".isidentifier() or text[1:2].isdigit() or len(text) == 1:
        return text
    selector, _, rest = text[1:].partition(".")
    if selector == "node":
        return _node_output(text)
    if selector == "ctx":
        return _param(text, rest)
    if selector == "env":
        if not rest:
            raise BadReference("the name of the environment variable is missing", "Write $env.<NAME>")
        return EnvVar(rest)
    raise BadReference(f"there is no ${_shown(selector)}", f"{_guess(selector, rest)} {_literally(text)}")


def has_meaning(text: str) -> bool:
    """Return whether a text in ``inputs`` may stand for something other than itself."""
    return text.startswith("$") or "{{" in text


def descend(value: Any, fields: tuple[str, ...]) -> Any:
    """Follow fields into a value, as pyoco does: the keys of mappings, the attributes of everything else.

    Raises:
        LookupError: there is no such field.
    """
    for number, field in enumerate(fields):
        try:
            value = value[field] if isinstance(value, dict) else getattr(value, field)
        except (KeyError, AttributeError):
            where = f" in {'.'.join(fields[:number])!r}" if number else ""
            raise LookupError(f"there is no {field!r}{where}") from None
    return value


def find_param(params: dict[str, Any], key: str) -> Any:
    """Return a param: the one of exactly this name, or else the one to which the dots lead.

    Raises:
        LookupError: there is none.
    """
    return params[key] if key in params else descend(params, tuple(key.split(".")))


def known_fields(params: dict[str, Any], key: str) -> list[str]:
    """Return what could stand in the place of the first part of a param's key that leads nowhere."""
    parts = key.split(".")
    for number, part in enumerate(parts):
        if not isinstance(params, dict):
            return []
        if part not in params:
            return [".".join([*parts[:number], str(name)]) for name in params]
        params = params[part]
    return []


def _node_output(text: str) -> NodeOutput:
    _, name, output, *fields = [*text.split("."), "", ""][: max(3, text.count(".") + 1)]
    if not name:
        raise BadReference("the name of the node is missing", "Write $node.<name>.output")
    if output != "output":
        rest = ".".join(["", *([output] if output.strip() and not _like_output(output) else []), *fields])
        hint = f"Write $node.{_shown(name)}.output{_shown(rest) if rest.strip('.') else ''}"
        raise BadReference("after the node's name comes .output", hint)
    if not all(fields):
        raise BadReference("a field's name is missing between two dots, or after the last", "Write $node.<name>.output")
    return NodeOutput(normal_name(name), tuple(fields))


def _param(text: str, rest: str) -> Param:
    head, _, key = rest.partition(".")
    if head == "params":
        if not key:
            raise BadReference("the name of the param is missing", "Write $ctx.params.<key>")
        return Param(key)
    if head in ("results", "result") and key:
        name, _, fields = key.partition(".")
        hint = f"Write $node.{_shown(name)}.output{'.' + _shown(fields) if fields else ''}"
        raise BadReference("in inputs a node's output is named in another way", hint)
    if head in ("loop", "loops", "scratch", "artifacts"):
        hint = f"Let the task's function take ctx, and read ctx.{_shown(rest)} there."
        raise BadReference("inputs reach only $ctx.params.<key>", hint)
    wanted = _shown(key if _close(head, ["params"]) and key else rest or "<key>")
    raise BadReference("inputs reach only $ctx.params.<key>", f"Write $ctx.params.{wanted}")


def _refuse_template(text: str) -> None:
    if (inner := _whole_template(text)) is not None and inner.startswith("$"):
        read_text(inner)  # what is wrong inside is said first
        raise BadReference("inputs have no templates", f"Write {_shown(inner)} without the braces.")
    begin = text.find("{{")
    while begin >= 0 and (end := text.find("}}", begin)) >= 0:
        if _NAMED.search(text, begin, end):
            hint = "An input is one reference or a plain text. Compute it in the task, or in one before it."
            raise BadReference("inputs have no templates", hint)
        begin = text.find("{{", end)


def _whole_template(text: str) -> str | None:
    inner = text[2:-2].strip()
    is_one = text.startswith("{{") and text.endswith("}}") and "{{" not in inner and "}}" not in inner
    return inner if is_one and _NAMED.search(inner) else None


def inner_reference(text: str) -> Reference | None:
    """Return the one reference that stands in braces, as in ``{{ $node.a.output }}``; ``None`` if there is none."""
    inner = _whole_template(text)
    if inner is None:
        return None
    try:
        read = read_text(inner)
    except BadReference:
        return None
    return None if isinstance(read, str) else read


def _guess(selector: str, rest: str) -> str:
    if selector in _PARAMS or selector == "ctx":
        names = [part for part in rest.split(".") if part not in ("params", "defaults", "inputs")]
        return f"Write $ctx.params.{_shown('.'.join(names) or '<key>')}."
    if selector in _NODES:
        name, _, fields = rest.partition(".")
        fields = fields.removeprefix("output").removeprefix(".")
        return f"Write $node.{_shown(name) or '<name>'}.output{'.' + _shown(fields) if fields else ''}."
    close = difflib.get_close_matches(selector[:20], ("node", "ctx", "env"), n=1)
    return f"Did you mean ${close[0]}? {_FORMS}" if close else _FORMS


def _close(word: str, known: list[str]) -> bool:
    return bool(difflib.get_close_matches(word[:20], known, n=1))


def _like_output(word: str) -> bool:
    return _close(word, ["output", "outputs", "result", "results"])


def _literally(text: str) -> str:
    return f"For the text itself write it with two dollar signs: ${_shown(text)}"


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
