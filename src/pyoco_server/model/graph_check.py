"""What is checked of a graph when a flow.yaml is read: pyoco compiles it over stand-ins for the tasks.

What pyoco refuses now cannot surprise a worker later.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from pyoco.core.models import Flow, Task
from pyoco.dsl import expressions
from pyoco.dsl import graph as pyoco_graph
from pyoco.dsl.graph_terms import Pipeline, PipeRefTerm, SwitchTerm, TaskTerm, Term
from pyoco.dsl.nodes import SubFlowNode

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow_file import FlowFile
from pyoco_server.model.flow_names import Entry, FlowNames
from pyoco_server.model.references import BadReference, has_meaning, inner_reference, read_text
from pyoco_server.model.run_names import Use
from pyoco_server.model.spelling import composed, normal_name
from pyoco_server.model.yaml_source import Path, Place, YamlSource, short, suggest

GRAPH: Path = ("flow", "graph")
_MAX_EXPANDED = 300_000
_MAX_SAID = 500
"""Characters of what pyoco says that are looked at: it may quote all of a text."""
_POSITION = re.compile(r" at position (\d+)")
_UNSUPPORTED = re.compile(r"Unsupported expression '(.*)'\.")
_QUOTED_BRANCH = re.compile(r":\s*[\"']")
_EXPRESSION_HINT = "Write {{ params.x }}, or {{ $ctx.results.task > 3 }}"
_ALIAS_HINT = "pyoco takes names of letters, digits and _ here, the first an ASCII letter or _: item=row"
_SPLIT_HINT = "Split it into several flows."
_GRAPH_HINT = "A graph reads like: a >> b >> switch(on=x) { 1: c; default: d }"
# What compiling a graph or an expression may raise: pyoco's errors are ValueErrors, Python's compiler adds the others.
_COMPILING = (ValueError, TypeError, SyntaxError, MemoryError, OverflowError)


def task_names(resolved: Pipeline) -> list[str]:
    """Return the entries of ``tasks`` that a graph uses."""
    return list(dict.fromkeys(term.name for term in _terms(resolved) if isinstance(term, TaskTerm)))


def compile_graph(file: FlowFile, tasks: dict[str, Task], flow_name: str) -> Flow:
    """Let pyoco compile a graph."""
    return pyoco_graph.build_flow_from_graph(
        graph=file.flow.graph, tasks=tasks, pipes=dict(file.pipes), flow_name=flow_name
    )


def check_graph(source: YamlSource, file: FlowFile) -> tuple[tuple[str, ...], FlowNames]:
    """Compile the graph over placeholders; what pyoco refuses now cannot surprise a worker later."""
    texts: dict[Path, str] = {GRAPH: file.flow.graph} | {("pipes", name): text for name, text in file.pipes.items()}
    parsed = {path: _parse(source, path, text) for path, text in texts.items()}
    _check_pipes(source, texts, parsed)
    try:
        resolved = pyoco_graph.resolve_pipe_refs(parsed[GRAPH], dict(file.pipes))
        names = _check_names(source, texts, file, resolved)
        report = pyoco_graph.validate_graph_terms(resolved)
        if report.errors:
            is_alias = any("must be an identifier" in error for error in report.errors)
            raise source.refuse(GRAPH, "; ".join(report.errors), hint=_ALIAS_HINT if is_alias else _GRAPH_HINT)
        stand_ins = {name: Task(_StandIn(name), name) for name in file.tasks}
        program = compile_graph(file, stand_ins, "main").build_program()  # type: ignore[no-untyped-call]
    except _COMPILING as error:
        raise _blame(source, texts, error) from None
    return names, _check_references(source, file, program, texts, set(task_names(resolved)))


def _check_references(
    source: YamlSource, file: FlowFile, program: SubFlowNode, texts: dict[Path, str], run: set[str]
) -> FlowNames:
    """Check the names in the inputs of the tasks that are run, and in the graph."""
    written = source.texts_below("tasks", "*", "inputs").items()
    uses = {normal_name(name): list(_read_inputs(found)) for name, found in written if normal_name(name) in run}
    entries = {name: Entry(uses.get(name, []), file.tasks[name].outputs) for name in run}
    # What is kept with a flow must not keep its whole source.
    places, anywhere = _expression_places(source, texts), source.place(GRAPH)
    return FlowNames(
        program, entries, _entry_of, lambda text: places.get(text, anywhere), file.flow.defaults,
        file.runtime.expose_env,
    )  # fmt: skip


def _entry_of(task: Task) -> str:
    assert isinstance(task.func, _StandIn)  # noqa: S101 - the graph was compiled over nothing else
    return task.func.name


@dataclass(frozen=True)
class _StandIn:
    """Stands in for the function of an entry of ``tasks`` while a graph is only checked."""

    name: str

    def __call__(self) -> None:
        """Nothing is run."""


def _read_inputs(texts: list[tuple[Place, str]]) -> Iterator[Use]:
    for place, text in texts:
        if not has_meaning(text):
            continue
        if (inner := inner_reference(text)) is not None:
            yield Use(place, text, inner, in_braces=True)
        else:
            try:
                read = read_text(text)
            except BadReference as error:
                raise place.refuse(f"{short(text)!r}: {error.message}", error.hint) from None
            if not isinstance(read, str):
                yield Use(place, text, read)


def _expression_places(source: YamlSource, texts: dict[Path, str]) -> dict[str, Place]:
    """Find the expressions of the graph by what pyoco makes of them."""
    found: dict[str, Place] = {}
    for path, text in texts.items():
        tokens = [
            token
            for before, token in itertools.pairwise(pyoco_graph.tokenize_graph(text))
            if before.kind == "EQUAL" and token.kind in ("IDENT", "STRING", "TEMPLATE")
        ]
        for token, place in zip(tokens, source.places_in(path, text, [token.pos for token in tokens]), strict=True):
            inner = token.value.removeprefix("{{").removesuffix("}}").strip()
            for expression in (inner, f"$ctx.params.{inner}", f"$ctx.{inner}", f"${inner}"):
                found.setdefault(expression, place)
    return found


def _parse(source: YamlSource, path: Path, text: str) -> Pipeline:
    try:
        parsed = pyoco_graph.parse_graph(text)
    except pyoco_graph.GraphSyntaxError as error:
        message, found = _POSITION.sub("", str(error)), _POSITION.search(str(error))
        if found is None or _QUOTED_BRANCH.search(text):  # there, the position may count from the inner quote
            raise source.refuse(path, message, hint=_GRAPH_HINT) from None
        at = int(found[1])
        near = short(text[at:].partition("\n")[0], 40) or "the end"
        hint = _hint_on_character(text, at) or _GRAPH_HINT
        raise source.refuse(path, f"{message} (near {near!r})", hint=hint, at=(text, at)) from None
    if len(_terms(parsed)) > pyoco_graph.MAX_PIPE_EXPANDED_TERMS:  # pyoco says so too, much later
        raise source.refuse(path, f"more than {pyoco_graph.MAX_PIPE_EXPANDED_TERMS} terms", hint=_SPLIT_HINT)
    return parsed


def _hint_on_character(text: str, at: int) -> str:
    """Return what to write instead of a character that the graph's language has not."""
    char = text[at : at + 1]
    if char == ".":
        return "A path with dots stands in braces, as in switch(on={{ results.check }})"
    if char == "$":
        return "A reference stands in braces, as in switch(on={{ $ctx.results.check }})"
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
    return f"pyoco's graphs have letters, digits and _ in names, no other signs: {sign} in {short(name)!r}"


def _check_pipes(source: YamlSource, texts: dict[Path, str], parsed: dict[Path, Pipeline]) -> None:
    """Bound what pyoco would expand: it reads a pipe's text again at each use, for minutes if it is let."""
    sizes: dict[Path, int] = {}

    def size(path: Path, inside: tuple[Path, ...]) -> int:
        if path in sizes:
            return sizes[path]
        total = len(texts[path]) if inside else 0
        for term in _terms(parsed[path]):
            if not isinstance(term, PipeRefTerm):
                continue
            pipe: Path = ("pipes", term.name)
            if pipe not in texts:
                hint = suggest(term.name, [str(name) for top, name in texts if top == "pipes"], "Defined under pipes")
                raise source.refuse(
                    path, f"Unknown pipe {short(term.name)!r}", hint=hint, at=_find(texts, term.name, path)[1]
                )
            if pipe in (*inside, path):
                message = f"Cyclic pipes: {short(term.name)!r} leads back to itself"
                raise source.refuse(path, message, at=_find(texts, term.name, path)[1])
            total += size(pipe, (*inside, path))
        if total > _MAX_EXPANDED:
            raise source.refuse(path, f"its pipes expand to more than {_MAX_EXPANDED} characters")
        sizes[path] = total
        return total

    size(GRAPH, ())


def _check_names(source: YamlSource, texts: dict[Path, str], file: FlowFile, resolved: Pipeline) -> tuple[str, ...]:
    """Check every task term, and give the names of the nodes."""
    straight = all(isinstance(term, TaskTerm) for term in resolved.terms)
    named: dict[str, bool] = {}
    for term in _terms(resolved):
        if not isinstance(term, TaskTerm):
            continue
        for name in (term.name, term.node_name or ""):
            if name != normal_name(name):  # the same name to Python, but not to pyoco
                path, at = _find(texts, name)
                hint = f"Write {short(normal_name(name))}, which Python reads for it."
                raise source.refuse(path, f"the name {short(name)!r} has signs in another form", hint=hint, at=at)
        if term.name not in file.tasks:
            path, at = _find(texts, term.name)
            hint = suggest(term.name, file.tasks, "Defined under tasks")
            message = f"the graph names the task {short(term.name)!r}, which is not defined"
            raise source.refuse(path, message, hint=hint, at=at)
        node, has_name = term.node_name or term.name, term.node_name is not None
        if node in named and (straight or has_name or named[node]):  # pyoco would deadlock, or run it once
            path, at = _find(texts, node, nth=1)
            hint = f"Give each use a node name of its own, such as again: {short(term.name)}"
            raise source.refuse(path, f"{short(node)!r} stands in the graph twice", hint=hint, at=at)
        named[node] = has_name
    return tuple(named)


def _blame(source: YamlSource, texts: dict[Path, str], error: BaseException) -> InvalidFlow:
    """Find the expression that pyoco could not compile; its errors do not always name it."""
    bare = _UNSUPPORTED.match(str(error))
    if bare is not None and bare[1].isidentifier():  # pyoco's paths begin with an ASCII letter
        path, at = _find(texts, bare[1], value=True)
        hint = f"Write {{{{ params.{short(bare[1])} }}}}"
        return source.refuse(path, f"the expression {short(bare[1])!r} cannot be used", hint=hint, at=at)
    said = short(str(error), _MAX_SAID) or "it cannot be compiled"
    for path, text in texts.items():
        for token in pyoco_graph.tokenize_graph(text):
            if token.kind not in ("TEMPLATE", "STRING"):
                continue
            try:
                expressions.Expression(token.value.removeprefix("{{").removesuffix("}}").strip())
            except _COMPILING as problem:
                if repr(token.value[: _MAX_SAID // 2])[1:-1] in said or short(str(problem), _MAX_SAID) == said:
                    message = f"the expression {short(token.value)!r} cannot be used: {said}"
                    return source.refuse(path, message, hint=_EXPRESSION_HINT, at=(text, token.pos))
    return source.refuse(GRAPH, said, hint=_GRAPH_HINT)


def _find(
    texts: dict[Path, str], name: str, inside: Path | None = None, *, nth: int = 0, value: bool = False
) -> tuple[Path, tuple[str, int] | None]:
    """Find a name in the graph or a pipe, or with ``value`` what is given after ``=``: the text and the position."""
    for path, text in texts.items():
        tokens = pyoco_graph.tokenize_graph(text) if inside in (None, path) else []
        places = [
            token.pos
            for before, token, after in zip([None, *tokens], tokens, tokens[1:], strict=False)
            if token.value == name
            and after.kind not in ("EQUAL", "LPAREN")
            and value == (before is not None and before.kind == "EQUAL")
        ]
        if places:
            return path, (text, places[min(nth, len(places) - 1)])
    return inside or GRAPH, None


def _terms(pipeline: Pipeline) -> list[Term]:
    """Return all terms in the order in which they are written."""
    found: list[Term] = []
    waiting = list(reversed(pipeline.terms))
    while waiting:
        term = waiting.pop()
        found.append(term)
        branches = [case.branch for case in term.cases] if isinstance(term, SwitchTerm) else []
        for branch in reversed((*branches, getattr(term, "default", None), getattr(term, "body", None))):
            if branch is not None:
                waiting += reversed(branch.terms)
    return found
