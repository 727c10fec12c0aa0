"""From the text of a graph, or of a pipe, to terms. All that pyoco's own parser takes is taken, and means the same."""

from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from pyoco_server.model.flow.graph.problems import GraphProblem, Spot
from pyoco_server.model.flow.graph.terms import (
    Argument,
    Case,
    Line,
    Lines,
    LoopKind,
    LoopTerm,
    PipeTerm,
    Sign,
    SwitchTerm,
    TaskTerm,
    Term,
)
from pyoco_server.model.flow.graph.tokens import GRAPH_HINT, Token, tokens_of
from pyoco_server.model.flow.yaml_source import short

MOST_TERMS = 4096
"""As many as pyoco takes of a graph with its pipes."""
MOST_DEPTH = 100
"""Of braces, parentheses and pipes in each other; beyond about 90 pyoco takes none either."""
SPLIT_HINT = "Split it into several flows."
_LOOPS: dict[str, tuple[LoopKind, str]] = {
    "repeat": ("repeat", "count"), "foreach": ("foreach", "over"), "until": ("until", "cond"),
}  # fmt: skip
_CALLED = {"pipe", "switch", *_LOOPS}
_SIGNS: dict[str, Sign] = {"SHIFT": ">>", "AND": "&", "OR": "|"}
_END = frozenset({"EOF"})
_BRACE = frozenset({"RBRACE"})
_PARENTHESIS = frozenset({"RPAREN"})
_CASE_END = frozenset({"SEMI", "RBRACE"})
_CASE_KEYS = frozenset({"IDENT", "STRING", "NUMBER", "TEMPLATE"})
_VALUES = frozenset({"IDENT", "NUMBER", "STRING", "TEMPLATE"})
_LINES_HINT = "Each line of the graph stands on a line of its own, under graph: |"
_CASE_HINT = "A case is written key: a >> b; several lines of one case stand in parentheses: key: (…)"
_SAID = {
    "EOF": "the end", "IDENT": "a name", "LPAREN": "'('", "RPAREN": "')'", "LBRACE": "'{'", "RBRACE": "'}'",
    "COLON": "':'", "SEMI": "';'", "EQUAL": "'='",
}  # fmt: skip


@dataclass
class ParsedText:
    """What a text says.

    Args:
        lines: Its lines.
        terms: How many terms it has, without those of its pipes.
        depth: How deep it nests, without its pipes.
        pipes: The pipes that it uses, each with how deep inside it stands.
    """

    lines: Lines
    terms: int
    depth: int
    pipes: list[tuple[PipeTerm, int]]


def parse(text: str, pipe: str | None = None) -> ParsedText:
    """Read a text.

    Args:
        text: The graph, or a pipe.
        pipe: The pipe's name.

    Raises:
        GraphProblem: it is not in the language.
    """
    counted = _Counted()
    lines = _Parser(text, pipe, None, counted, 0).whole()
    return ParsedText(lines, counted.terms, counted.depth, counted.pipes)


@dataclass
class _Counted:
    terms: int = 0
    depth: int = 0
    pipes: list[tuple[PipeTerm, int]] = field(default_factory=list)


class _Piece(NamedTuple):
    """A term, and where its text begins and ends."""

    term: Term
    begin: int
    end: int


class _Parser:
    """Reads one text; a branch in quotes is a text of its own, at the place of the quotes."""

    def __init__(self, text: str, pipe: str | None, place: int | None, counted: _Counted, depth: int) -> None:
        self._text = text
        self._pipe = pipe
        self._place = place
        self._counted = counted
        self._depth = depth
        try:
            self._tokens = tokens_of(text, pipe)
        except GraphProblem as problem:
            raise GraphProblem(problem.message, self._spot(problem.spot.at), problem.hint) from None
        self._next = 0

    def whole(self) -> Lines:
        return self._lines(_END)

    # Lines -----------------------------------------------------------------------------------------------------------

    def _lines(self, ends: frozenset[str]) -> Lines:
        spot = self._here()
        if self._token.kind in ends:
            raise GraphProblem(f"Empty: a task is expected before {self._said()}", spot, GRAPH_HINT)
        lines = [self._line()]
        while (token := self._token).kind not in ends:
            if token.kind == "SEMI":  # the existing system's graphs may have it, as Python has
                self._advance()
                if self._token.kind not in ends:
                    lines.append(self._line())
            elif token.is_first and token.kind in ("IDENT", "LPAREN"):
                lines.append(self._line())
            elif token.kind == "EOF":
                self._refuse(f"{_one_of(ends)} is missing at the end")
            elif token.kind in ("IDENT", "LPAREN"):
                self._refuse(f"'>>', '&', '|' or a new line is expected before {self._said()}", _LINES_HINT)
            else:
                self._refuse(f"{self._said()} cannot stand here: expected '>>', or {_one_of(ends)}")
        return Lines(tuple(lines), spot)

    def _line(self) -> Line:
        pieces, signs = [self._term()], list[Token]()
        while self._token.kind in _SIGNS:
            signs.append(self._advance())
            pieces.append(self._term())
        for number, sign in enumerate(signs[1:]):
            if sign.kind != signs[number].kind:
                self._refuse_mixed(pieces[number : number + 3], signs[number], sign)
        return Line(_SIGNS[signs[0].kind] if signs else ">>", tuple(piece.term for piece in pieces))

    def _refuse_mixed(self, pieces: list[_Piece], first: Token, second: Token) -> NoReturn:
        """Refuse what Python's precedence would read in another way than people do, and show both ways."""
        a, b, c = (" ".join(self._text[piece.begin : piece.end].split()) for piece in pieces)
        if len(a) + len(b) + len(c) > 120:
            a, b, c = "a", "b", "c"
        message = f"'{first.value}' and '{second.value}' stand side by side without parentheses"
        hint = f"Write ({a} {first.value} {b}) {second.value} {c}, or {a} {first.value} ({b} {second.value} {c})"
        raise GraphProblem(message, self._spot(second.at), hint)

    # Terms -----------------------------------------------------------------------------------------------------------

    def _term(self) -> _Piece:
        token = self._token
        begin, spot = token.at, self._here()
        term: Term
        if token.kind == "LPAREN":
            self._advance()
            lines = self._inside(_PARENTHESIS)
            term = lines.only or lines
        elif token.kind != "IDENT":
            self._refuse(f"a task is expected here, not {self._said()}")
        elif self._after(1).kind == "COLON":
            term = self._named(spot)
            self._count(spot)
        elif self._after(1).kind == "LPAREN" and (token.value in _CALLED or not self._after(1).is_first):
            term = self._called(token.value, spot)
        else:
            self._advance()
            term = TaskTerm(token.value, None, spot)
            self._count(spot)
        return _Piece(term, begin, self._tokens[self._next - 1].end)

    def _count(self, spot: Spot) -> None:
        self._counted.terms += 1
        if self._counted.terms > MOST_TERMS:
            raise GraphProblem(f"more than {MOST_TERMS} terms", spot, SPLIT_HINT)

    def _inside(self, ends: frozenset[str]) -> Lines:
        """Read lines up to a closing sign, and that sign."""
        self._deeper()
        lines = self._lines(ends)
        self._advance()
        self._depth -= 1
        return lines

    def _deeper(self) -> None:
        self._depth += 1
        self._counted.depth = max(self._counted.depth, self._depth)
        if self._depth > MOST_DEPTH:
            raise GraphProblem("the graph nests too deeply", self._here(), SPLIT_HINT)

    def _named(self, spot: Spot) -> TaskTerm:
        node = self._advance().value
        self._advance()
        task = self._expect({"IDENT"}, f"the task of the node {short(node)!r}").value
        token = self._token
        if token.kind == "LPAREN" and not token.is_first:
            message = f"the node {short(node)!r} must be a task, and {short(task)!r} is called here"
            self._refuse(message, f"Only tasks have node names: {short(node, 20)}: a")
        return TaskTerm(task, node, spot)

    def _called(self, name: str, spot: Spot) -> Term:
        if name not in _CALLED:
            hint = f"Write {short(name, 40)} without parentheses; with them there are: {', '.join(sorted(_CALLED))}"
            raise GraphProblem(f"{short(name)!r} cannot be called", spot, hint)
        begin = self._advance().at
        if name == "pipe":
            self._advance()
            pipe = PipeTerm(self._expect({"IDENT", "STRING"}, "the name of a pipe").value, spot)
            self._expect({"RPAREN"})
            self._counted.pipes.append((pipe, self._depth))
            return pipe
        self._count(spot)
        arguments = self._arguments()
        head = self._text[begin : self._tokens[self._next - 1].end]
        if name == "switch":
            on = self._needed(arguments, name, "on", spot)
            self._expect({"LBRACE"})
            return self._switch(head, on, spot)
        kind, over = _LOOPS[name]
        needed = self._needed(arguments, name, over, spot)
        self._expect({"LBRACE"})
        return LoopTerm(kind, head, needed, arguments, self._inside(_BRACE), spot)

    def _needed(self, arguments: dict[str, Argument], name: str, key: str, spot: Spot) -> Argument:
        found = arguments.get(key)
        if found is None or not found.value:
            raise GraphProblem(f"{name}(...) requires '{key}='", spot, f"Write {name}({key}=…) {{ … }}")
        return found

    def _arguments(self) -> dict[str, Argument]:
        self._advance()
        found: dict[str, Argument] = {}
        if self._token.kind != "RPAREN":
            while True:
                key = self._expect({"IDENT"}, "the name of an argument").value
                self._expect({"EQUAL"})
                spot = self._here()
                value = self._expect(_VALUES, f"a value for {short(key)}=")
                found[key] = Argument(value.value, value.kind == "IDENT", spot)
                if self._token.kind != "COMMA":
                    break
                self._advance()
        self._expect({"RPAREN"})
        return found

    # Cases -----------------------------------------------------------------------------------------------------------

    def _switch(self, head: str, on: Argument, spot: Spot) -> SwitchTerm:
        self._deeper()
        cases: list[Case] = []
        default: Lines | None = None
        while self._token.kind != "RBRACE":
            if self._token.kind == "SEMI":
                self._advance()
                continue
            key = self._expect(_CASE_KEYS, "a case", _CASE_HINT)
            self._expect({"COLON"}, hint=_CASE_HINT)
            branch = self._branch()
            if key.kind == "IDENT" and key.value == "default":
                default = branch
            else:
                cases.append(Case(self._text[key.at : key.end], key.value, branch))
            if self._token.kind not in _CASE_END and not (self._token.is_first and self._token.kind in _CASE_KEYS):
                self._refuse(f"';', '}}' or a new line is expected before {self._said()}", _CASE_HINT)
        self._advance()
        self._depth -= 1
        if not cases and default is None:
            raise GraphProblem("switch must define at least one case.", spot, GRAPH_HINT)
        return SwitchTerm(head, on, tuple(cases), default, spot)

    def _branch(self) -> Lines:
        """Read what a case leads to: one line, or text in quotes that is a graph of its own."""
        token, after = self._token, self._after(1)
        if token.kind == "STRING" and (after.kind in _CASE_END or after.is_first):
            self._advance()
            self._deeper()
            place = token.at if self._place is None else self._place
            quoted = _Parser(token.value, self._pipe, place, self._counted, self._depth).whole()
            self._depth -= 1
            return quoted
        if token.kind in _CASE_END:
            self._refuse(f"Empty: a task is expected before {self._said()}", _CASE_HINT)
        spot = self._here()
        return Lines((self._line(),), spot)

    # Tokens ----------------------------------------------------------------------------------------------------------

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _after(self, count: int) -> Token:
        return self._tokens[min(self._next + count, len(self._tokens) - 1)]

    def _advance(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _expect(self, kinds: "set[str] | frozenset[str]", what: str = "", hint: str = "") -> Token:
        if self._token.kind not in kinds:
            self._refuse(f"{what or _one_of(kinds)} is expected here, not {self._said()}", hint)
        return self._advance()

    def _said(self) -> str:
        token = self._token
        return _SAID["EOF"] if token.kind == "EOF" else repr(short(self._text[token.at : token.end], 40))

    def _here(self) -> Spot:
        return self._spot(self._token.at)

    def _spot(self, at: int) -> Spot:
        return Spot(self._pipe, at if self._place is None else self._place)

    def _refuse(self, message: str, hint: str = "") -> NoReturn:
        raise GraphProblem(message, self._here(), hint or GRAPH_HINT)


def _one_of(kinds: "set[str] | frozenset[str]") -> str:
    return " or ".join(sorted(_SAID[kind] for kind in kinds))
