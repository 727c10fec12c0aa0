"""Flow texts that are made to cost much: each takes a size in bytes, and gives a text of about that size."""

from collections.abc import Callable

KINDS: dict[str, Callable[[int], str]] = {}
_ONE = "\ntasks:\n  a: {callable: 'm:f'}\n"
_INPUTS = "flow:\n  graph: a\ntasks:\n  a:\n    callable: m:f\n    inputs:\n"
_GRAPH = "flow:\n  graph: "
_BLOCK = "flow:\n  graph: |\n    "
_MARKS = "\u0301\u0323"
"""Two combining characters that are not in the order that Unicode asks for."""


def filled(begin: str, part: str | Callable[[int], str], end: str, size: int) -> str:
    """Return a text of so many parts that it has about a size."""
    pieces, length, number = [begin], len(begin) + len(end), 0
    while length < size:
        pieces.append(part if isinstance(part, str) else part(number))
        length += len(pieces[-1].encode())
        number += 1
    return "".join([*pieces, end])


def _add(name: str, begin: str, part: str | Callable[[int], str], end: str = "") -> None:
    KINDS[name] = lambda size: filled(begin, part, end, size)


def _nested(begin: str, middle: str, end: str, share: int = 1) -> Callable[[int], str]:
    def make(size: int) -> str:
        times = size // share // (len(begin) + len(end))
        return f"{_BLOCK}{begin * times}{middle}{end * times}{_ONE}"

    return make


# The graph
_add("one task again and again", _GRAPH, "a >> ", "a" + _ONE)
_add("unknown tasks", _GRAPH, lambda n: f"x{n} >> ", "y" + _ONE)
_add("a chain that ends badly", _GRAPH, "a >> ", "!" + _ONE)
_add("nodes of one task", _BLOCK, lambda n: f"n{n}: a >> ", "a" + _ONE)
_add("a wide switch", _BLOCK + "switch(on=x) { ", lambda n: f"{n}: n{n}: a; ", "default: a }" + _ONE)
_add("one case again and again", _BLOCK + "switch(on=x) { ", lambda n: f"1: n{n}: a; ", "default: a }" + _ONE)
_add("quoted branches", _BLOCK + "switch(on=x) { ", lambda n: f'{n}: "n{n}: a"; ', "default: a }" + _ONE)
_add("tasks deep inside", _BLOCK + "repeat(count=2) { " * 40, lambda n: f"n{n}: a >> ", "a" + "}" * 40 + _ONE)
_add("a switch deep inside", _BLOCK + "foreach(over=xs) { " * 40 + "switch(on=x) { ", lambda n: f"{n}: n{n}: a; ",
     "}" + "}" * 40 + "\n  defaults: {xs: []}" + _ONE)  # fmt: skip
KINDS["nested loops"] = _nested("repeat(count=1) { ", "a", "}")
_add("open braces", _BLOCK, "{{ ", "}}" + _ONE)
_add("comments", _BLOCK + "a\n", "    # }}\n", _ONE)
_add("a long name", _GRAPH, "a", _ONE)
_add("digits", _BLOCK + "repeat(count=", "1", ") { a }" + _ONE)
_add("digits of another script", _BLOCK + "repeat(count=", "\u0661", ") { a }" + _ONE)
# Branches
_add("lines that lead to one task", _BLOCK, lambda n: f"n{n}: a >> b\n    ", f"b{_ONE}  b: {{callable: 'm:f'}}\n")
_add("lines in the wrong order", _BLOCK, lambda n: f"n{n + 1} >> n{n}: a\n    ", "b" + _ONE)
_add("tasks side by side", _BLOCK + "(", lambda n: f"n{n}: a & ", "a) >> b" + _ONE + "  b: {callable: 'm:f'}\n")
_add("any of many", _BLOCK + "(", lambda n: f"n{n}: a | ", "a) >> b" + _ONE + "  b: {callable: 'm:f'}\n")
_add("one task beside itself", _BLOCK + "(", "a & ", "a)" + _ONE)
_add("a circle", _BLOCK + "n0: a >> ", lambda n: f"n{n + 1}: a\n    n{n + 1} >> ", "n0" + _ONE)
_add("groups to be joined", _BLOCK + "(", lambda n: f"(n{n}: a & m{n}: a) | ", "a) >> x: a" + _ONE)
_add("signs without parentheses", _BLOCK, "a & a >> ", "a" + _ONE)
_add("groups in a chain", _BLOCK, lambda n: f"(n{n}: a & m{n}: a) >> ", "a" + _ONE)
_add("parentheses", _BLOCK, "(", _ONE)
_add("loops side by side", _BLOCK, lambda n: f"repeat(count=1) {{ n{n}: a & m{n}: a }}\n    ", "a" + _ONE)
_add("the same loop side by side", _BLOCK, "repeat(count=1) { a }\n    ", "a" + _ONE)
_add("tasks that need one beside them", _BLOCK, lambda n: f"n{n}: a\n    ",
     "b" + _ONE.replace("m:f'", "m:f', inputs: {x: $node.b.output}") + "  b: {callable: 'm:f'}\n")  # fmt: skip
KINDS["groups in groups"] = lambda size: filled(
    f"{_BLOCK}{'(' * 90}a", lambda n: f" & n{n}: a" + (")" if n < 90 else ""), _ONE, size
)
KINDS["two large groups"] = lambda size: (
    f"{_BLOCK}({' & '.join(f'n{n}: a' for n in range(size // 20))}) >> "
    f"({' & '.join(f'm{n}: a' for n in range(size // 20))}){_ONE}"
)
# Expressions
_add("many conditions", _BLOCK, lambda n: f"until(cond={{{{ $ctx.results.n{n} > 3 }}}}) {{ n{n}: a }} >> ", "a" + _ONE)
_add("many loops", _BLOCK, lambda n: f"foreach(over=xs, item=it{n}) {{ n{n}: a }} >> ",
     "a\n  defaults: {xs: []}" + _ONE)  # fmt: skip
_add("misspelt names", _BLOCK,
     lambda n: f"until(cond={{{{ $ctx.params.a or $ctx.stcafitra{n} }}}}) {{ n{n}: a }} >> ", "a" + _ONE)  # fmt: skip
_add("names like those of the loops around",
     _BLOCK + "".join(f"foreach(over=xs, item=abcdefgh{n:02d}, index=bcadefgh{n:02d}) {{ " for n in range(20)),
     lambda n: f"until(cond={{{{ $ctx.params.a or $ctx.hgfedcba{n} }}}}) {{ n{n}: a }} >> ",
     "a" + "}" * 20 + "\n  defaults: {xs: []}" + _ONE)  # fmt: skip
_add("a long sum", _BLOCK + "until(cond={{ $ctx.params.a", " + $ctx.params.a", " }}) { a }" + _ONE)
_add("a long or", _BLOCK + "until(cond={{ $ctx.params.a", " or $ctx.params.a", " }}) { a }" + _ONE)
_add("a long comparison", _BLOCK + "until(cond={{ $ctx.params.a", " < 1", " }}) { a }" + _ONE)
_add("minus signs", _BLOCK + "until(cond={{ ", "-", "$ctx.a }}) { a }" + _ONE)
_add("a long path", _BLOCK + "until(cond={{ $ctx.a", ".b", " }}) { a }" + _ONE)
_add("expressions before a bad one", _BLOCK, lambda n: f"until(cond={{{{ x{n} }}}}) {{ n{n}: a }} >> ",
     "until(cond={{ $ctx.a + }}) { a }" + _ONE)  # fmt: skip
KINDS["a long bad expression after others"] = lambda size: filled(
    _BLOCK, lambda n: f"until(cond={{{{ x{n} }}}}) {{ n{n}: a }} >> ",
    f"until(cond={{{{ $ctx.a '{'x' * (size // 2)}' y }}}}) {{ a }}{_ONE}", size,
)  # fmt: skip
# Pipes
_add("a pipe again and again", "pipes: {p: 'n: a'}" + _ONE + _GRAPH, "pipe(p) >> ", "a")
_add("a chain of pipes", _GRAPH + "pipe(p0)" + _ONE + "pipes:\n", lambda n: f"  p{n}: pipe(p{n + 1})\n")
_add("pipes that double", _GRAPH + "pipe(p0)" + _ONE + "pipes:\n",
     lambda n: f"  p{n}: pipe(p{n + 1}) >> pipe(p{n + 1})\n")  # fmt: skip
_add("a long way to one task, again and again",
     "pipes: {p126: '((a & b))'" + "".join(f", p{n}: pipe(p{n + 1})" for n in range(126)) + "}" + _ONE
     + "  b: {callable: 'm:f'}\n" + _BLOCK, lambda n: f"pipe(p0) >> n{n}: a ; ", "a")  # fmt: skip
_add("unknown pipes", _GRAPH + "pipe(zz)" + _ONE + "pipes:\n", lambda n: f"  p{n}: a\n")
# Tasks and their inputs
_add("many tasks, another one asked for", _GRAPH + "zzzz\ntasks:\n", lambda n: f"  t{n}: {{callable: 'm:f'}}\n")
_add("many tasks of like names", _GRAPH + "a" * 70 + "\ntasks:\n", lambda n: f"  {'a' * 60}{n}: {{callable: 'm:f'}}\n")
_add("many wrong tasks", _GRAPH + "a\ntasks:\n", lambda n: f"  a{n}: {{zz: 1}}\n")
_add("names that are none", _GRAPH + "a\ntasks:\n", lambda n: f"  'a {n}': {{callable: 1}}\n")
_add("outputs", _GRAPH + "a\ntasks:\n  a:\n    callable: m:f\n    outputs: [", lambda n: f"results.r{n}, ", "x]\n")
_add("nodes that there are not", _INPUTS, lambda n: f"      i{n}: $node.zz{n}.output\n")
_add("a reference of many fields", _INPUTS + "      x: $node.a", ".b", ".output\n")
_add("a param of many fields", _INPUTS + "      x: $ctx.params.a", ".b", "\n")
_add("templates", _INPUTS + "      x: '", "{{ x }}", "'\n")
_add("braces", _INPUTS + "      x: '", "{{", "'\n")
_add("deep inputs", _INPUTS, lambda n: f"      i{n}: {'{a: ' * 50}$ctx.params.a{'}' * 50}\n")
KINDS["many texts under a long key"] = lambda size: filled(
    f"{_INPUTS}      ? {'k' * (size // 2)}\n      : [", "$ctx.params.a, ", "1]\n", size
)


def _missing(size: int) -> str:
    times = size // 60
    given = ", ".join(f"pppp{n}: 1" for n in range(times))
    asked = "".join(f"      i{n}: $ctx.params.pppq{n}\n" for n in range(times))
    return _INPUTS.replace("graph: a", f"graph: a\n  defaults: {{{given}}}") + asked


def _missing_unless_written(size: int) -> str:
    times = size // 90
    given = ", ".join(f"pppp{n}: 1" for n in range(times))
    written = ", ".join(f"params.q{n}" for n in range(times))
    asked = "".join(f"      i{n}: $ctx.params.q{n}\n" for n in range(times))
    graph = " >> ".join([*(f"n{n}: a" for n in range(times)), "b"])
    head = f"flow:\n  graph: |\n    {graph}\n  defaults: {{{given}}}\ntasks:\n  b: {{callable: 'm:f'}}\n  a:\n"
    return f"{head}    callable: m:f\n    outputs: [{written}]\n    inputs:\n{asked}"


def _later(size: int) -> str:
    """Return tasks in a loop that each use the next one's output: of the round before."""
    times = size // 70
    tasks = [f"  t{n}: {{callable: 'm:f', inputs: {{x: $node.t{n + 1}.output}}}}\n" for n in range(times)]
    graph = " >> ".join(f"t{n}" for n in range(times + 1))
    head = f"flow:\n  graph: |\n    foreach(over=xs) {{ {graph} }}\n  defaults: {{xs: [1]}}\ntasks:\n"
    return head + "".join(tasks) + f"  t{times}: {{callable: 'm:f'}}\n"


KINDS["params that are missing"] = _missing
KINDS["params that are missing unless a task writes them"] = _missing_unless_written
KINDS["tasks that need the next one"] = _later
# YAML
_add("a key again and again", "tasks:\n", "  a: 1\n")
_add("a key that comes back at the end", "tasks:\n", lambda n: f"  a{n}: 1\n", "  a0: 2\n")
_add("unknown keys", "", lambda n: f"k{n}: 1\n")
_add("lists in lists", "a: ", "[")
_add("mappings in mappings", "a: ", "{a: ")
_add("commas", "a: [", "1,", "]")
_add("empty lists", "a: [", "[],", "]")
_add("dashes", "a:\n", "- \n")
_add("anchors", "a:\n", lambda n: f"- &a{n} 1\n")
_add("aliases", "a: &a [1]\nb: [", "*a,", "]")
_add("aliases of aliases", "a0: &a0 [1, 1]\n", lambda n: f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n")
_add("merges", "x: &x {a: 1, b: 2}\ny: {", "<<: *x, ", "}")
_add("a list of merges", "x: &x {a: 1, b: 2}\ny: {<<: [", "*x, ", "]}")
_add("merges of merges", "m0: &m0 {a: 1}\n", lambda n: f"m{n + 1}: &m{n + 1} {{<<: *m{n}, k{n}: 1}}\n")
_add("%TAG lines", "", lambda n: f"%TAG !a{n}! b\n", "--- {}\n")
_add("tags", "a:\n", "- !!str a\n")
_add("documents", "", "--- a\n")
_add("a long key", "? ", "k", "\n: 1\n")
_add("a long number", _GRAPH + "a\n  defaults: {x: ", "1", "}" + _ONE)
_add("a number of base sixty", _GRAPH + "a\n  defaults: {x: 1", ":1", "}" + _ONE)
_add("underscores", _GRAPH + "a\n  defaults: {x: 1", "_", "}" + _ONE)
_add("empty lines", _BLOCK + "a\n", "\r\n", _ONE)
_add("a large text, often", f"{_GRAPH}a\n  defaults:\n    s: &s {'x' * 200}\n    l: [", "*s, ", "]" + _ONE)
_add("control characters", "a: ", "\x01")
# Unicode
_add("combining characters in the graph", _GRAPH + "a", _MARKS, _ONE)
_add("combining characters in a task's name", _GRAPH + "a\ntasks:\n  ? a", _MARKS, "\n  : {callable: 'm:f'}\n")
_add("combining characters in an input's name", _INPUTS + "      ? a", _MARKS, "\n      : 1\n")
_add("combining characters in a callable", _GRAPH + "a\ntasks:\n  a:\n    callable: m:a", _MARKS, "\n")
_add("combining characters in a reference", _INPUTS + "      x: $node.a", _MARKS, ".output\n")
_add("ligatures", _GRAPH + "a\ntasks:\n", lambda n: f"  \ufdfa{n}: {{callable: 'm:f'}}\n")
