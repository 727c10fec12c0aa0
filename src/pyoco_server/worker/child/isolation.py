"""``fail_policy: isolate``: the run goes on without a failed task and everything that waits for it.

pyoco's engine decides in one pass over the tasks, in no order, what an isolated failure means for the others. What it
has not reached when the pass ends, it calls a deadlock: ``a >> b >> c`` with an isolated ``a`` then fails the run.
"""

import contextlib
from collections.abc import Iterator

from pyoco.core.models import Flow, Task


@contextlib.contextmanager
def isolating(flow: Flow) -> Iterator[None]:
    """Let the engine see at once what waits for an isolated task; the flow is given back unchanged.

    Each task gets the isolated ones before it as its first dependencies, in the order of the graph. It waits for them
    in any case; but now the engine meets a failed one before it meets a task that is not decided yet.
    Programs with loops or branches have no dependencies, and no isolation: any failure ends them.
    """
    kept = [(task, task.dependencies) for task in flow.tasks]
    before: dict[Task, dict[Task, None]] = {}
    try:
        for task in _in_order(flow):
            found: dict[Task, None] = {}
            # A task that needs any one of several may run without the isolated one.
            for needed in task.dependencies if task.trigger_policy != "ANY" else ():
                found |= before.get(needed, {})
                if needed.fail_policy == "isolate":
                    found[needed] = None
            before[task] = found
        for task, dependencies in kept:
            if first := before.get(task):
                # A view of a dict's keys is a set that keeps its order.
                task.dependencies = {**first, **dict.fromkeys(dependencies)}.keys()  # type: ignore[assignment]
        yield
    finally:
        for task, dependencies in kept:
            task.dependencies = dependencies


def _in_order(flow: Flow) -> Iterator[Task]:
    """Give the tasks, each after what it depends on; tasks in a cycle are left out, the engine refuses them."""
    done: set[Task] = set()
    left = list(flow.tasks)
    while ready := [task for task in left if task.dependencies <= done]:
        yield from ready
        done.update(ready)
        left = [task for task in left if task not in done]
