"""Flows that end in every way, for the page to show."""

import json
from pathlib import Path
from typing import Any

CODE = """
import pathlib, sys, time

def load(n=3):
    print("loading", n, "rows")
    return {"rows": list(range(n))}

def explode(load):
    print("about to divide", file=sys.stderr)
    return divide(len(load["rows"]), 0)

def divide(a, b):
    return a / b

def flaky(load):
    tries = pathlib.Path(__file__).with_name("tries.txt")
    count = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (count + 1))
    if count < 1:
        raise ConnectionError("the service is busy")
    return "at last"

def step():
    print("one step")
    return 1

def nap():
    time.sleep(0.3)

def wait_for_word():
    for number in range(2000):
        print("line", number, flush=True)
        if pathlib.Path(__file__).with_name("go.txt").exists():
            return "went on"
        time.sleep(0.05)
"""
PLACE_OF_DIVIDE = CODE[: CODE.index("return a / b")].count("\n") + 1


def write_code(folder: Path) -> None:
    """Put the tasks where workers find them."""
    (folder / "page_tasks.py").write_text(CODE)


def flow(graph: str, *tasks: str, defaults: dict[str, Any] | None = None, **options: dict[str, Any]) -> str:
    """Give a flow.yaml of tasks of the module, each with its options."""
    entries = {task: {"callable": f"page_tasks:{task}", **options.get(task, {})} for task in tasks}
    return json.dumps({"version": 1, "flow": {"graph": graph, "defaults": defaults or {}}, "tasks": entries})


FAILING = flow("load >> explode >> never: step", "load", "explode", "step")
RETRIED = flow("load >> flaky", "load", "flaky", flaky={"retries": 2, "retry_delay_sec": 0.1})
MANY = flow(" >> ".join(f"step_{number:03}: step" for number in range(200)), "step")
LOOPING = flow(
    "load >> repeat(count=3) { one: step >> two: step } >> "
    "switch(on=kind) { a: left: step; b: right: step } >> last: step",
    "load", "step", defaults={"kind": "b"},
)  # fmt: skip
BRANCHING = flow(
    "load >> (left: nap & right: nap)\nload >> quick: step\n"
    "(left & right) >> both: step\n(both | quick) >> first: step\n"
    "load >> repeat(count=2) { one: step & two: step }",
    "load", "nap", "step",
)  # fmt: skip
WAITING = flow("load >> wait_for_word >> last: step", "load", "wait_for_word", "step")
