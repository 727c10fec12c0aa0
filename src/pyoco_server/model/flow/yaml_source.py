"""A YAML text as plain data, with the line of every key: bounded, strict, and never surprised by its writer."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from pyoco_server.errors import InvalidFlow, TooLarge
from pyoco_server.model.text.spelling import nearest, normal_name
from pyoco_server.model.text.terminal import is_plain

_MAX_DEPTH = 64
_MAX_NODES = 20_000
_MAX_NUMBER = 100
_MAX_MESSAGE = 500
_MOST_REPEATED = 1_000_000
"""Characters that aliases may add to a text."""
_MOST_TAG_HANDLES = 8
"""The parser compares each ``%TAG`` with all before it."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML = "tag:yaml.org,2002:"
_MERGE = _YAML + "merge"
_TAGS = {
    yaml.ScalarNode: ["str", "int", "float", "bool", "null"],
    yaml.SequenceNode: ["seq"],
    yaml.MappingNode: ["map"],
}
_PLAIN = yaml.constructor.SafeConstructor()
_READERS = {
    "int": _PLAIN.construct_yaml_int,
    "float": _PLAIN.construct_yaml_float,
    "bool": _PLAIN.construct_yaml_bool,
}

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where something stands in a file.

    Args:
        key: Dotted path of its key.
        line: Its 1-based line.
        column: Its 1-based column, where that is told.
    """

    key: str | None = None
    line: int | None = None
    column: int | None = None

    def refuse(self, message: str, hint: str = "") -> InvalidFlow:
        """Return the error that names this place."""
        hint = short(hint, _MAX_MESSAGE)
        message = short(message, _MAX_MESSAGE)
        return InvalidFlow(message, hint=hint, line=self.line, key=self.key, column=self.column)


@dataclass(frozen=True)
class YamlSource:
    """A parsed text.

    Args:
        data: Its content as JSON-like data.
        root: Its node tree, which knows the lines.
        text: The text itself.
    """

    data: dict[str, Any]
    root: yaml.MappingNode
    text: str = field(default="", repr=False, compare=False)
    _indexes: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = field(default_factory=dict, repr=False, compare=False)

    def line_of(self, path: Path) -> int | None:
        """Give the 1-based line of a key, or of the nearest one above it that exists."""
        node: yaml.Node = self.root
        line = None
        for part in path:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = _line(node)
            elif found := self._entry(node, part):
                line, node = _line(found[0]), found[1]
            else:
                return line
        return line

    def refuse(self, path: Path, message: str, *, hint: str = "", at: tuple[str, int] | None = None) -> InvalidFlow:
        """Make the error that names a place of this file.

        Args:
            path: The key at fault.
            message: What is wrong with it.
            hint: What to write instead.
            at: The key's text value and a position in it, when the place inside the text is known.
        """
        return self.place(path, at=at).refuse(message, hint)

    def place(self, path: Path, *, at: tuple[str, int] | None = None) -> Place:
        """Return where a key stands; the arguments are those of ``refuse``."""
        if at is None:
            return Place(_dotted(path), self.line_of(path))
        return Place(_dotted(path), self._line_in(path, *at), self._column_in(path, *at))

    def texts_below(self, *path: str) -> dict[str, list[tuple[Place, str]]]:
        """Return the texts in each entry of a mapping, at any depth, with the place of each.

        Args:
            path: Of the mapping of entries, then ``*`` for each of them, and then of what is looked at in it.
        """
        star = path.index("*")
        found: dict[str, list[tuple[Place, str]]] = {}
        for key, node in _items(self._node(path[:star])):
            inside: yaml.Node | None = node
            for part in path[star + 1 :]:
                inside = (self._entry(inside, part) or (None, None))[1]
            found[key.value] = list(_texts(inside, (*path[:star], short(key.value), *path[star + 1 :])))
        return found

    def places_in(self, path: Path, text: str, positions: Iterable[int]) -> list[Place]:
        """Return the places of several positions in one text, in rising order."""
        places, line, counted = [], self._line_in(path, text, 0), 0
        style = getattr(self._node(path), "style", None)
        for position in positions:
            if line is not None and style == "|":
                line += text.count("\n", counted, position)
            counted = position
            places.append(Place(_dotted(path), line))
        return places

    def _node(self, path: Path) -> yaml.Node | None:
        node: yaml.Node | None = self.root
        for part in path:
            node = (self._entry(node, part) or (None, None))[1]
        return node

    def _entry(self, node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
        """Find a key; after a merge (``<<``) the last one of its name is the one that counts."""
        if not isinstance(node, yaml.MappingNode):
            return None
        index = self._indexes.get(id(node))
        if index is None:
            index = {item[0].value: item for item in _items(node)}
            for item in [*index.values()]:
                index.setdefault(normal_name(item[0].value), item)
            self._indexes[id(node)] = index
        return index.get(str(part)) or index.get(normal_name(str(part)))

    def _line_in(self, path: Path, text: str, position: int) -> int | None:
        node = self._node(path)
        if not isinstance(node, yaml.ScalarNode):
            return self.line_of(path)
        start: int = node.start_mark.line + 1
        return start + 1 + text.count("\n", 0, position) if node.style == "|" else start

    def _column_in(self, path: Path, text: str, position: int) -> int | None:
        """Return the column of a position in a text that stands in the file as it is read."""
        node = self._node(path)
        if not isinstance(node, yaml.ScalarNode):
            return None
        if node.style == "|":
            begin = text.rfind("\n", 0, position) + 1
            said = text[begin:].partition("\n")[0]
            lines = self.text.split("\n")
            number: int = node.start_mark.line + 1 + text.count("\n", 0, position)
            written = lines[number].rstrip("\r") if number < len(lines) else ""
            return len(written) - len(said) + position - begin + 1 if written.endswith(said) else None
        quotes = 1 if node.style else 0
        if node.end_mark.index - node.start_mark.index != len(text) + 2 * quotes:
            return None  # with escapes, or over several lines
        column: int = node.start_mark.column
        return column + quotes + position + 1


def _dotted(path: Path) -> str | None:
    parts = [str(part) if is_plain(str(part)) else ascii(part) for part in path]
    return ".".join(map(short, parts)) or None


def _texts(node: yaml.Node | None, path: Path) -> Iterator[tuple[Place, str]]:
    if isinstance(node, yaml.ScalarNode):
        if node.tag == _YAML + "str":
            yield Place(_dotted(path), _line(node)), node.value
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _texts(item, (*path, number))
    else:
        for key, value in _items(node):
            yield from _texts(value, (*path, short(key.value)))


def short(text: str, limit: int = 80) -> str:
    """Cut what a writer may have made endless before it enters a message."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def suggest(name: str, known: Iterable[str], heading: str) -> str:
    """Make the hint for a name that is not known: the nearest one, then all."""
    names = list(known)
    close = nearest(name, names)
    guess = f"Did you mean {short(close)!r}? " if close is not None else ""
    rest = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{guess}{heading}: {', '.join(map(short, names[:20])) or 'none'}{rest}"


def read_yaml(raw: bytes, *, max_bytes: int) -> YamlSource:
    """Read one YAML mapping.

    Raises:
        TooLarge: more than ``max_bytes``.
        InvalidFlow: not UTF-8, not YAML, not one mapping, a key twice, nested or aliased out of all measure.
    """
    if len(raw) > max_bytes:
        raise TooLarge(
            f"the workflow has {len(raw)} bytes, more than the {max_bytes} that are accepted",
            hint="Pass large data as params or files; PYOCO_WORKFLOW_YAML_MAX_BYTES sets the limit.",
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFlow(
            f"the file is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}",
            hint="Save it as UTF-8.",
            line=raw.count(b"\n", 0, error.start) + 1,
        ) from None
    try:
        _check_shape(text)
        root = yaml.compose(text, Loader=_Loader)
        if not isinstance(root, yaml.MappingNode):
            raise InvalidFlow("the file must be a mapping with the keys version, flow and tasks", line=1)
        _check_nodes(root, len(text) + _MOST_REPEATED)
        loader = _Loader("")
        try:
            return YamlSource(loader.construct_document(root), root, text)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _not_yaml(error, raw) from None


def _not_yaml(error: yaml.YAMLError, raw: bytes) -> InvalidFlow:
    hint = ""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "it cannot be read"
        if "cannot start any token" in problem:
            hint = "Indent with spaces, never tabs; a value that begins with @, ` or % needs quotes."
        where = f" (column {mark.column + 1})" if mark else ""
        return InvalidFlow(f"not valid YAML: {problem}{where}", line=mark.line + 1 if mark else None, hint=hint)
    position = getattr(error, "position", None)
    line = raw.count(b"\n", 0, position) + 1 if isinstance(position, int) else None
    return InvalidFlow(f"not valid YAML: {str(error).splitlines()[0]}", line=line)


def _check_shape(text: str) -> None:
    """Refuse deep nesting, masses of values and a second document before the C parser makes a tree of them."""
    if text.count("%TAG") > _MOST_TAG_HANDLES:
        _check_tag_handles(text)
    depth = documents = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        values += isinstance(event, yaml.events.NodeEvent)
        if values > _MAX_NODES:
            raise InvalidFlow(f"more than {_MAX_NODES} values", line=_line(event))
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise InvalidFlow(f"nested deeper than {_MAX_DEPTH} levels", line=_line(event))
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.events.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InvalidFlow("a second document begins", line=_line(event), hint="One flow a file.")


def _check_tag_handles(text: str) -> None:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("%TAG")]
    if len(lines) > _MOST_TAG_HANDLES:
        raise InvalidFlow(f"more than {_MOST_TAG_HANDLES} %TAG lines", line=lines[0], hint="A flow needs none.")


def _check_nodes(root: yaml.Node, most_characters: int) -> None:
    """Check every node once, and how large and deep all aliases together would grow."""
    measured: dict[int, tuple[int, int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int, int]:
        if id(node) in measured:
            return measured[id(node)]
        line = _line(node)
        if id(node) in open_nodes:
            raise InvalidFlow("an alias contains itself", line=line)
        _check_tag(node, line)
        open_nodes.add(id(node))
        children: list[yaml.Node] = []
        characters = 0
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node, line)
            characters = len(node.value)
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        else:
            _check_keys(node)
            children = [child for pair in _items(node) for child in pair if child.tag != _MERGE or child is pair[1]]
        sizes = [measure(child) for child in children]
        open_nodes.discard(id(node))
        total, depth = 1 + sum(size for size, _, _ in sizes), 1 + max((deep for _, deep, _ in sizes), default=0)
        characters += sum(length for _, _, length in sizes)
        if total > _MAX_NODES:
            raise InvalidFlow(f"more than {_MAX_NODES} values, aliases counted as often as they are used", line=line)
        if depth > _MAX_DEPTH + 1:
            raise InvalidFlow(f"nested deeper than {_MAX_DEPTH} levels, aliases followed", line=line)
        if characters > most_characters:
            raise InvalidFlow(f"its aliases repeat more than {_MOST_REPEATED} characters", line=line)
        measured[id(node)] = total, depth, characters
        return total, depth, characters

    measure(root)


def _check_tag(node: yaml.Node, line: int | None) -> None:
    if node.tag in [_YAML + name for name in _TAGS[type(node)]]:
        return
    kind = short(node.tag.removeprefix(_YAML))
    written = isinstance(node, yaml.ScalarNode) and kind in ("timestamp", "value", "merge")
    hint = "Put it in quotes." if written else "Remove the tag; only JSON's kinds of values can be used."
    raise InvalidFlow(f"a value of the type {kind!r} cannot be used here", line=line, hint=hint)


def _check_keys(node: yaml.Node) -> None:
    seen: dict[str, int | None] = {}
    for key, value in _items(node):
        line = _line(key)
        if key.tag == _MERGE:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            if not all(isinstance(item, yaml.MappingNode) for item in merged):
                raise InvalidFlow("'<<' takes a mapping, or a list of mappings", line=line)
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != _YAML + "str":
            shown = short(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise InvalidFlow(f"the key {shown!r} is not text", line=line, hint="Put it in quotes.")
        if key.value in seen:
            message = f"the key {short(key.value)!r} stands twice (first in line {seen[key.value]})"
            raise InvalidFlow(message, line=line, hint="Remove one, or give it another name.")
        seen[key.value] = line


def _check_scalar(node: yaml.ScalarNode, line: int | None) -> None:
    if _SURROGATE.search(node.value):
        raise InvalidFlow("half of a surrogate pair is not a character", line=line)
    kind = node.tag.removeprefix(_YAML)
    try:
        good = kind not in _READERS or (len(node.value) <= _MAX_NUMBER and math.isfinite(_READERS[kind](node)))
    except (ValueError, KeyError, IndexError, OverflowError):
        good = False
    if not good:
        message = f"{short(node.value)!r} is not a value of the type {kind} that JSON can carry"
        raise InvalidFlow(message, line=line, hint="Put it in quotes if it is text.")


def _line(marked: yaml.Event | yaml.Node) -> int | None:
    return marked.start_mark.line + 1 if marked.start_mark else None


def _items(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value
