"""The whole graph language of pyoco, run by a real worker; and nothing that the graph does not name."""

from collections.abc import Iterator

import pytest

from .conftest import System, running_system

CODE = """
def inc(ctx):
    return (ctx.results.get("inc") or 0) + 1

def item(ctx):
    return (ctx.results.get("item") or "") + str(ctx.loop.item)

def text(inc=None):
    return f"v={inc}"

def never():
    raise AssertionError("the graph does not name me")
"""
TASKS = "\n".join(f"  {name}: {{callable: 'lang_tasks:{name}'}}" for name in ("inc", "item", "text", "never"))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("language")
    (folder / "lang_tasks.py").write_text(CODE)
    plugin = folder / "plugin"
    info = plugin / "demo_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pyoco.tasks]\ndemo = demo_plugin:register\n")
    (plugin / "demo_plugin.py").write_text(
        "def double(x):\n    return 2 * int(x)\n"
        "def bomb():\n    raise AssertionError('nobody named me')\n"
        "def register(registry):\n"
        "    registry.register_callable(double, name='demo/double')\n"
        "    registry.register_callable(bomb, name='demo/bomb')\n"
    )
    with running_system(folder) as running:
        running.worker(PYTHONPATH=str(plugin))
        yield running


@pytest.mark.parametrize(
    ("graph", "outputs"),
    [
        ("inc >> text", {"inc": 1, "text": "v=1"}),
        ("inc >> again: text", {"inc": 1, "again": "v=1"}),
        ("repeat(count=3) { inc } >> text", {"inc": 3, "text": "v=3"}),
        ("repeat(count=n) { inc }", {"inc": 2}),
        ("foreach(over=items, item=i) { item }", {"item": "abc"}),
        ("until(cond={{ $ctx.results.inc >= 4 }}, max_iter=9) { inc } >> text", {"inc": 4, "text": "v=4"}),
        ("pipe(both)", {"inc": 1, "text": "v=1"}),
        ("inc >> switch(on=mode) { x: text; default: item }", {"inc": 1, "text": "v=1", "item": None}),
    ],
)
def test_the_graph_language(system: System, graph: str, outputs: dict[str, object]) -> None:
    flow = f"flow:\n  graph: |\n    {graph}\n  defaults: {{n: 2, items: [a, b, c], mode: x}}\n"
    run = system.run(f"{flow}tasks:\n{TASKS}\npipes:\n  both: inc >> text\n")
    assert run["status"] == "COMPLETED", run["error"]
    assert {name: run["task_records"].get(name, {}).get("output") for name in outputs} == outputs
    assert set(run["tasks"]) == set(outputs)
    assert run["skipped_tasks"] == [name for name, output in outputs.items() if output is None]


def test_a_plugins_task(system: System) -> None:
    run = system.run("flow: {graph: d >> t, defaults: {x: 21}}\ntasks:\n  d: {use: demo/double}\n"
                     "  t: {callable: 'lang_tasks:text', inputs: {inc: $node.d.output}}\n")  # fmt: skip
    assert run["status"] == "COMPLETED", run["error"]
    assert run["task_records"]["t"]["output"] == "v=42"


def test_a_plugins_task_that_is_not_there(system: System) -> None:
    run = system.run("flow: {graph: d}\ntasks:\n  d: {use: demo/missing}\n")
    assert (run["status"], run["end_reason"]) == ("FAILED", "dependency_missing")
    assert "demo/missing" in run["error"]


def test_a_switch_without_a_match_fails_with_its_sentence(system: System) -> None:
    run = system.run(
        f"flow:\n  graph: |\n    switch(on=mode) {{ x: text }}\n  defaults: {{mode: y}}\ntasks:\n{TASKS}\n"
    )
    assert run["status"] == "FAILED"
    assert "did not match any case" in run["error"]


def test_retries_and_isolation(system: System) -> None:
    (system.folder / "flaky.py").write_text(
        f"import pathlib\nplace = pathlib.Path({str(system.folder)!r}) / 'tries'\n"
        "def t():\n"
        "    place.write_text((place.read_text() if place.exists() else '') + 'x')\n"
        "    if len(place.read_text()) < 3:\n        raise ValueError('not yet')\n    return 'third'\n"
    )
    run = system.run("flow: {graph: t}\ntasks:\n  t: {callable: 'flaky:t', retries: 5}\n")
    assert run["status"] == "COMPLETED"
    assert run["task_records"]["t"]["output"] == "third"


def test_artifacts_stay_in_the_runs_own_directory(system: System) -> None:
    (system.folder / "arts.py").write_text("def t(ctx):\n    return ctx.save_artifact('a.txt', 'hello')\n")
    run = system.run("flow: {graph: t}\ntasks:\n  t: {callable: 'arts:t'}\n")
    from pathlib import Path

    path = Path(run["task_records"]["t"]["output"])
    assert path.read_text() == "hello"
    assert run["run_id"] in str(path)
    assert not (system.folder / "artifacts").exists()
