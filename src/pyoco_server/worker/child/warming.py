"""A flow of ours that makes the engine ready for the first one of a user.

Code that has run a few times is faster. And a forked process copies each page of memory when it first writes to it:
done while it waits for a job, this is not done while a run waits.
"""

from pyoco.core.models import RunContext

from pyoco_server.worker.child.flow.flows import FlowSource
from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.protocol import Message, encode
from pyoco_server.worker.child.tasks.engine import RunEngine
from pyoco_server.worker.child.tasks.forks import forks_kept_out
from pyoco_server.worker.child.tasks.reporter import TaskReporter
from pyoco_server.worker.child.tasks.retries import supervised, tasks_of

_FLOW = f"""\
version: 1
flow:
  graph: |
    first >> second
  defaults: {{x: 1}}
tasks:
  first: {{callable: "{__name__}:first"}}
  second: {{callable: "{__name__}:second", inputs: {{first: $node.first.output}}}}
"""


def first(x: int) -> int:
    """Return something for the next task."""
    return x + 1


def second(first: int) -> str:
    """Return a text."""
    return f"{first}"


def _tell_nobody(message: Message) -> None:
    encode(message)


def warm_up(times: int = 1) -> None:
    """Make and run the flow, without a trace outside of this process."""
    for _ in range(times):
        flow, params = FlowSource(None).from_yaml(_FLOW, "warm", {})
        context = RunContext(run_id="warm", flow_name="warm")
        # The engine itself would make a directory for artifacts.
        ctx = WiredContext(params=params, run_context=context, artifact_dir=".")
        reporter = TaskReporter(_tell_nobody, context, 1000, lambda _: None)
        engine = RunEngine(trace_backend=reporter)
        with forks_kept_out(flow), supervised(flow, context, reporter):
            for task in sorted(tasks_of(flow), key=lambda task: task.name):
                engine.run_task(task, ctx)
        reporter.close()
