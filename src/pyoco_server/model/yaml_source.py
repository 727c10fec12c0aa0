"""A YAML text as plain data, with the line of every key: bounded, strict, and never surprised by its writer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pyoco_server.errors import InvalidFlow, TooLarge

_MAX_DEPTH = 64
_MAX_NODES = 20_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_JSON_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlSource:
    """A parsed text.

    Args:
        data: Its content as JSON-like data.
        root: Its node tree, which knows the lines.
    """

    data: dict[str, Any]
    root: yaml.MappingNode

    def line_of(self, path: Path) -> int | None:
        """Give the 1-based line of a key, or of the nearest one above it that exists."""
        node: yaml.Node = self.root
        line = None
        for part in path:
            found = next(((key, value) for key, value in _items(node) if key.value == str(part)), None)
            if found is None:
                if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                    node = node.value[part]
                    line = node.start_mark.line + 1
                    continue
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def scalar(self, path: Path) -> yaml.ScalarNode | None:
        """Give the node of a text value."""
        node: yaml.Node | None = self.root
        for part in path:
            node = next((value for key, value in _items(node) if key.value == str(part)), None)
        return node if isinstance(node, yaml.ScalarNode) else None


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
            f"the file is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}", hint="Save it as UTF-8."
        ) from None
    try:
        _check_shape(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (column {mark.column + 1})" if mark else ""
        problem = error.problem or error.context or "it cannot be read"
        raise InvalidFlow(f"not valid YAML: {problem}{where}", line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise InvalidFlow(f"not valid YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise InvalidFlow("the file must be a mapping with the keys version, flow and tasks", line=1)
    _check_nodes(root)
    loader = _Loader("")
    try:
        data = loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidFlow(f"not valid YAML: {error}") from None
    finally:
        loader.dispose()
    return YamlSource(data, root)


def _check_shape(text: str) -> None:
    """Refuse deep nesting and a second document before the C parser recurses into them."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
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


def _check_nodes(root: yaml.Node) -> None:
    """Check every node once, and what all aliases together would grow to."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        line = _line(node)
        if id(node) in open_nodes:
            raise InvalidFlow("an alias contains itself", line=line)
        if node.tag not in _JSON_TAGS:
            kind = node.tag.rpartition(":")[2]
            raise InvalidFlow(f"a value of the type {kind!r} cannot be used", line=line, hint="Put it in quotes.")
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node, line)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(item) for item in node.value)
        else:
            _check_keys(node)
            total += sum(1 + size(value) for _, value in _items(node))
        open_nodes.discard(id(node))
        if total > _MAX_NODES:
            raise InvalidFlow(f"more than {_MAX_NODES} values, aliases counted as often as they are used", line=line)
        sizes[id(node)] = total
        return total

    size(root)


def _check_keys(node: yaml.Node) -> None:
    seen: dict[str, int] = {}
    for key, _ in _items(node):
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (
            "tag:yaml.org,2002:str",
            "tag:yaml.org,2002:merge",
        ):
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise InvalidFlow(f"the key {shown!r} is not text", line=line, hint="Put it in quotes.")
        _check_scalar(key, line)
        if key.value in seen and key.tag.endswith("str"):
            raise InvalidFlow(f"the key {key.value!r} stands twice (first in line {seen[key.value]})", line=line)
        seen[key.value] = line


def _check_scalar(node: yaml.ScalarNode, line: int | None) -> None:
    if any("\ud800" <= char <= "\udfff" for char in node.value):
        raise InvalidFlow("half of a surrogate pair is not a character", line=line)
    if node.tag.endswith(":float"):
        try:
            number = float(node.value.replace("_", ""))
        except ValueError:  # .inf, .nan, and sexagesimal numbers
            number = math.nan
        if not math.isfinite(number):
            raise InvalidFlow(f"{node.value} is not a number that JSON knows", line=line, hint="Put it in quotes.")


def _line(marked: yaml.Event | yaml.Node) -> int | None:
    return marked.start_mark.line + 1 if marked.start_mark else None


def _items(node: yaml.Node | None) -> Iterator[tuple[Any, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value
