"""The words and signs of a graph's text."""

import re
import unicodedata
from typing import NamedTuple

from pyoco_server.model.flow.graph.problems import GraphProblem, Spot
from pyoco_server.model.flow.yaml_source import short
from pyoco_server.model.text.spelling import composed

GRAPH_HINT = "A graph reads like: a >> b >> switch(on=x) { 1: c; default: d }"
_SIGNS = {
    "(": "LPAREN", ")": "RPAREN", "{": "LBRACE", "}": "RBRACE", ":": "COLON", ";": "SEMI", ",": "COMMA", "=": "EQUAL",
    "&": "AND", "|": "OR",
}  # fmt: skip
_INSTEAD = {
    ".": "A path with dots stands in braces, as in switch(on={{ results.check }})",
    "$": "A reference stands in braces, as in switch(on={{ $ctx.results.check }})",
    "\\": "Leave it out: a line goes on behind '>>', and inside of parentheses.",
}
_INSTEAD |= dict.fromkeys(
    "[]%", "Write switch(on=x) { 1: a }, repeat(count=3) { a }, foreach(over=xs) { a } or until(cond=x) { a }"
)
_PASSED = re.compile(r"(?:[ \t\r]|#[^\n]*)+")
_WORD = re.compile(r"\w+")
_STRINGS = {quote: re.compile(rf"{quote}([^{quote}\\]*(?:\\.[^{quote}\\]*)*){quote}", re.DOTALL) for quote in "'\""}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Token(NamedTuple):
    """A word or a sign.

    Args:
        kind: What it is, by pyoco's name for it.
        value: What it says.
        at: Where it begins.
        end: Where it ends.
        is_first: Whether it is the first one of its line.
    """

    kind: str
    value: str
    at: int
    end: int
    is_first: bool


def tokens_of(text: str, pipe: str | None = None) -> list[Token]:
    """Return the tokens of a text, the last one of the kind ``EOF``.

    Args:
        text: The graph, or a pipe.
        pipe: The pipe's name.

    Raises:
        GraphProblem: a character or a text in quotes cannot be read.
    """
    found: list[Token] = []
    at, length, is_first = 0, len(text), True
    while at < length:
        char = text[at]
        if char == "\n":
            at, is_first = at + 1, True
            continue
        if char in " \t\r#":
            passed = _PASSED.match(text, at)
            at = passed.end() if passed else at + 1
            continue
        kind, value, end = _read(text, at, char, pipe)
        found.append(Token(kind, value, at, end, is_first))
        at, is_first = end, False
    end = found[-1].end if found else 0
    found.append(Token("EOF", "", end, end, is_first))
    return found


def _read(text: str, at: int, char: str, pipe: str | None) -> tuple[str, str, int]:
    """Return kind, value and end of the token at a position."""
    if char == ">":
        if text.startswith(">>", at) and not text.startswith(">>>", at):
            return "SHIFT", ">>", at + 2
        raise GraphProblem("Unsupported operator '>'. Use '>>' only.", Spot(pipe, at), GRAPH_HINT)
    if char == "{" and text.startswith("{{", at):
        end = text.find("}}", at + 2)
        if end < 0:
            raise GraphProblem("'{{' has no end", Spot(pipe, at), "Close it with }}")
        return "TEMPLATE", "{{" + text[at + 2 : end].strip() + "}}", end + 2
    if char in _SIGNS:
        return _SIGNS[char], char, at + 1
    if char in _STRINGS:
        quoted = _STRINGS[char].match(text, at)
        if quoted is None:
            raise GraphProblem("the quotes are not closed", Spot(pipe, at), f"Close them with {char}")
        return "STRING", _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
    if char.isdigit():
        end = at + 1
        while end < len(text) and text[end].isdigit():
            end += 1
        return "NUMBER", text[at:end], end
    word = _WORD.match(text, at) if char.isalpha() or char == "_" else None
    if word is None:
        raise GraphProblem(f"Unexpected character {char!r}", Spot(pipe, at), _hint_on(text, at) or GRAPH_HINT)
    return "IDENT", word[0], word.end()


def _hint_on(text: str, at: int) -> str:
    """Return what to write instead of a character that the graph's language has not."""
    char = text[at]
    if char in _INSTEAD:
        return _INSTEAD[char]
    if char.isascii() or not f"a{char}".isidentifier():
        return ""
    begin = end = at
    while begin > 0 and f"a{text[begin - 1]}".isidentifier():
        begin -= 1
    while end < len(text) and f"a{text[end]}".isidentifier():
        end += 1
    name = composed(text[begin:end])
    if all(part.isalnum() or part == "_" for part in name):
        return f"Write the name composed (NFC): {short(name)}"
    sign = f"U+{ord(char):04X} {unicodedata.name(char, '')}"
    return f"Graphs have letters, digits and _ in names, no other signs: {sign} in {short(name)!r}"
