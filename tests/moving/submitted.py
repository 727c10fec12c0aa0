"""What is submitted to both systems, taken and refused; nobody serves the tag."""

from collections.abc import Iterator
from typing import Any

from .asks import Ask

TUTORIAL = """\
version: 1
flow:
  graph: |
    add_one >> to_text
  defaults:
    x: 1
tasks:
  add_one:
    callable: pyoco_server._workflow_test_tasks:add_one
  to_text:
    callable: pyoco_server._workflow_test_tasks:to_text
"""
TAG = "nobody"
_JSON = {"Content-Type": "application/json"}


def submissions() -> Iterator[Ask]:
    """Return runs of a resolver's flow."""
    good: dict[str, Any] = {"flow_name": "main", "tag": TAG}
    odd: dict[str, list[Any]] = {
        "params": [{"x": 1}, {}, {"a": {"b": [1, None, "ü", 1.5]}}, None, [], "x"],
        "tags": [["a", "b"], [], ["a.b", "x y", ""], None, "a", [1]],
        "tag": ["", "a.b", " x ", "ä", 1, "x" * 200],
        "flow_name": ["", None, 1, "x" * 300, "ä ö"],
        "more": [1],
    }
    bodies = [good, {"tag": TAG}, {}, [], "x", None]
    bodies += [{**good, name: value} for name, values in odd.items() for value in values]
    for body in bodies:
        yield Ask(f"POST /runs {body}"[:80], "POST", "/runs", None, {"json": body})
    raw = {
        "no JSON": (b"{", _JSON), "no body": (b"", {}), "no type": (b'{"flow_name":"main","tag":"nobody"}', {}),
        "as text": (b'{"flow_name":"main","tag":"nobody"}', {"Content-Type": "text/plain"}),
        "NaN": (b'{"flow_name":"main","tag":"nobody","params":{"x":NaN}}', _JSON),
        "a key twice": (b'{"flow_name":"a","flow_name":"main","tag":"nobody"}', _JSON),
    }  # fmt: skip
    for name, (content, headers) in raw.items():
        yield Ask(f"POST /runs: {name}", "POST", "/runs", None, {"content": content, "headers": headers})


def yaml_ask(name: str, workflow: str | bytes | None = TUTORIAL, **data: str) -> Ask:
    """Return the submission of a flow.yaml."""
    raw = workflow.encode() if isinstance(workflow, str) else workflow
    files = {"files": {"workflow": ("flow.yaml", raw, "application/x-yaml")}} if raw is not None else {}
    return Ask(f"yaml: {name}", "POST", "/runs/yaml", None, {**files, "data": {"tag": TAG, **data}})


def yaml_submissions() -> Iterator[Ask]:
    """Return flow.yaml files."""
    yield yaml_ask("good", flow_name="main")
    yield yaml_ask("no flow_name")
    yield yaml_ask("blank flow_name", flow_name=" ")
    yield yaml_ask("no file", None, flow_name="main")
    yield yaml_ask("padded", flow_name=" main ", tag=f" {TAG} ")
    yield yaml_ask("bad tag", flow_name="main", tag="a.b")
    yield yaml_ask("too large", "#" * 300_000, flow_name="main")
    yield yaml_ask("not UTF-8", b"\xff\xfe", flow_name="main")
    for name, text in _texts().items():
        yield yaml_ask(name, text, flow_name="main")


def _texts() -> dict[str, str]:
    edits = {
        "a flow key": ("flow:\n", "flow:\n  more: 1\n"), "a task key": ("add_one\n", "add_one\n    more: 1\n"),
        "no version": ("version: 1\n", ""), "version 2": ("version: 1", "version: 2"),
        "version x": ("version: 1", "version: x"), "version in quotes": ("version: 1", "version: '1'"),
        "defaults as list": ("    x: 1", "    - 1"), "no defaults": ("  defaults:\n    x: 1\n", ""),
        "empty defaults": ("    x: 1\n", ""), "a callable without a colon": (":add_one", ".add_one"),
        "no callable": ("    callable: pyoco_server._workflow_test_tasks:to_text\n", "    inputs: {}\n"),
        "an unknown task": ("add_one >> to_text", "add_one >> none"), "tabs": ("  graph", "\tgraph"),
        "anchors": ("x: 1", "x: &x 1\n    y: *x"), "CRLF": ("\n", "\r\n"), "null default": ("x: 1", "x: null"),
    }  # fmt: skip
    added = {
        "a key": "more: 1\n", "two keys": "more: 1\nother: 2\n", "flows": "flows: {}\n", "discovery": "discovery: {}\n",
        "a runtime key": "runtime:\n  more: 1\n", "expose_env": "runtime:\n  expose_env: [HOME]\n",
        "expose_env as text": "runtime:\n  expose_env: HOME\n", "empty runtime": "runtime:\n",
        "inputs as list": "    inputs: []\n", "inputs": "    inputs:\n      add_one: $node.add_one.output\n",
        "outputs as text": "    outputs: x\n", "outputs": "    outputs: [results.again]\n",
        "a task is null": "  third:\n", "a third task": "  third:\n    callable: flows:never\n",
        "a key twice": "version: 1\n", "a comment": "# hello\n", "two documents": "---\nversion: 1\n",
    }  # fmt: skip
    return {
        "empty": "", "a list": "[]", "no YAML": "{", "text": "x", "no flow": "version: 1\ntasks: {}\n",
        "no graph": "version: 1\nflow: {}\ntasks: {}\n", "BOM": "\ufeff" + TUTORIAL,
        "tasks as list": TUTORIAL.partition("tasks:")[0] + "tasks: []\n",
        **{name: TUTORIAL.replace(old, new) for name, (old, new) in edits.items()},
        **{f"with {name}": TUTORIAL + more for name, more in added.items()},
    }  # fmt: skip
