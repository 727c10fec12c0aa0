"""Inside the child process: runs one job after the other with pyoco's engine and reports over the socket.

User code runs here and only here. It may block, exit, crash or print whatever it likes.
"""

import contextlib
import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyoco.core.engine import Engine
from pyoco.core.models import Flow, RunContext, RunStatus

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.run import EndReason
from pyoco_server.model.text import clean_text
from pyoco_server.worker.child.failures import describe_exception, end_reason, note_environment, summarise
from pyoco_server.worker.child.flows import FlowProblem, FlowSource, load_resolver
from pyoco_server.worker.child.isolation import isolating
from pyoco_server.worker.child.protocol import LOST_WORKER, Message, encode, receive_message
from pyoco_server.worker.child.reporter import TaskReporter
from pyoco_server.worker.child.retries import RunStopped, supervised, tasks_of
from pyoco_server.worker.child.taskoutput import TaskOutput
from pyoco_server.worker.import_path import use_environment

_PR_SET_PDEATHSIG = 1


class Child:
    """The loop of the process: a job comes in, its story goes out.

    Args:
        sock: To the worker.
        installed: How many entries of ``sys.path`` are the worker's own.
    """

    def __init__(self, sock: socket.socket, installed: int) -> None:
        self._socket = sock
        self._installed = installed
        self._sending = threading.Lock()
        self._jobs: queue.Queue[Message] = queue.Queue()
        self._context: RunContext | None = None
        self._cancelled: str | None = None

    def main(self) -> None:
        """Serve until the worker closes the socket."""
        setup = receive_message(self._socket)
        if setup is None:
            return
        self._output = TaskOutput(setup["output"])
        self._output.install()
        use_environment(setup["environment"], behind=self._installed)
        note_environment(setup["environment"])
        try:
            resolver = load_resolver(setup["resolver"]) if setup.get("resolver") else None
        except BaseException as error:  # noqa: BLE001 - whatever a user's module raises on import, SystemExit too
            self.send({"type": "unusable", "error": f"{type(error).__name__}: {error}"})
            return
        flows = FlowSource(resolver)
        threading.Thread(target=self._read, name="pyoco-control", daemon=True).start()
        baseline = threading.active_count()
        self.send({"type": "ready", "pid": os.getpid()})
        while True:
            job = self._jobs.get()
            self._output.begin(setup["max_log_bytes"])
            result = self._run(job, flows, setup["max_value_bytes"])
            spent = result.get("reason") == EndReason.OUT_OF_MEMORY.value  # what it still holds, nobody knows
            result["reusable"] = not spent and threading.active_count() <= baseline and not _left_processes()
            self._output.end()
            self.send(result)

    def send(self, message: Message) -> None:
        """Send a message to the worker; from any thread."""
        with self._sending:
            self._socket.sendall(encode(message))

    def _read(self) -> None:
        while (message := receive_message(self._socket)) is not None:
            if message["type"] == "run":
                self._jobs.put(message)
            elif message["type"] == "cancel":
                self._cancelled = message["run_id"]
                context = self._context
                if context is not None and context.run_id == message["run_id"]:
                    context.status = RunStatus.CANCELLING
        # The worker is gone, or user code closed the socket: nobody would hear the result. The guardian does the rest.
        os._exit(LOST_WORKER)

    def _run(self, job: Message, flows: FlowSource, max_value_bytes: int) -> Message:
        params = job["params"]
        try:
            if job.get("workflow_yaml") is not None:
                flow, defaults = flows.from_yaml(job["workflow_yaml"], job["flow_name"])
                params = {**defaults, **params}
            else:
                flow = flows.from_resolver(job["flow_name"])
        except FlowProblem as error:
            return _failed(error.reason, str(error), error, task=error.task)
        except InvalidFlow as error:
            return _failed(EndReason.INVALID_FLOW, error.message, error)
        except BaseException as error:  # noqa: BLE001 - a resolver is user code and may raise anything
            return _failed(EndReason.INVALID_FLOW, f"making the flow raised {type(error).__name__}: {error}", error)
        directory = Path(job["directory"])
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            text = f"the run's working directory {directory} could not be made: {error.strerror}"
            return _failed(EndReason.CHILD_EXITED, text, None)
        with _inside(directory):
            return self._execute(job["run_id"], flow, params, max_value_bytes)

    def _execute(self, run_id: str, flow: Flow, params: dict[str, Any], max_value_bytes: int) -> Message:
        context = RunContext(run_id=run_id, flow_name=flow.name)
        self._context = context
        reporter = TaskReporter(self.send, context, max_value_bytes, self._output.announce)
        limits = {task.name: task.timeout_sec for task in tasks_of(flow) if task.timeout_sec}
        self.send({"type": "planned", "tasks": sorted(task.name for task in flow.tasks), "timeouts": limits})
        if self._cancelled == run_id:  # told while the flow was still being made
            context.status = RunStatus.CANCELLING
        try:
            with supervised(flow, context, reporter), isolating(flow):
                Engine(trace_backend=reporter).run(flow, params=params, run_context=context)
        except RunStopped:
            return {"type": "finished", "outcome": "cancelled"}
        except BaseException as error:  # noqa: BLE001 - sys.exit and KeyboardInterrupt in a task end the run, not us
            task = reporter.task_that_raised(error)
            where = f"task {task!r} failed: " if task else ""
            return _failed(end_reason(error), f"{where}{summarise(error)}{reporter.count_tries(task)}", None)
        finally:
            self._context = None
            reporter.close()
        # pyoco leaves the status at CANCELLING when the request met the last task.
        ended = context.status in (RunStatus.CANCELLING, RunStatus.CANCELLED)
        return {"type": "finished", "outcome": "cancelled" if ended else "completed"}


def _failed(reason: EndReason, message: str, error: BaseException | None, task: str | None = None) -> Message:
    result: Message = {
        "type": "finished",
        "outcome": "failed",
        "reason": reason.value,
        "error": clean_text(message),
        "task": task,
    }
    if error is not None and error.__cause__ is not None:  # the user's exception behind our sentence
        result["details"] = describe_exception(error.__cause__)
    return result


@contextlib.contextmanager
def _inside(path: Path) -> Iterator[None]:
    """Work in a directory, and remove it afterwards if it is empty.

    pyoco makes ``./artifacts`` in the working directory whether or not it is used.
    """
    home = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(home)
        for empty in (path / "artifacts", path):
            with contextlib.suppress(OSError):
                empty.rmdir()


def _left_processes() -> bool:
    """Tell whether the run left processes behind: our own, or orphans that our guardian adopted."""
    guardian = os.getppid()
    try:
        children = Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()
    except OSError:
        children = []
    if len(children) > 1:
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its guardian dies, even while user code holds the interpreter."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(descriptor: int, guardian: int) -> None:
    """Serve the worker.

    Args:
        descriptor: Of the socket to the worker.
        guardian: Process id of our parent.
    """
    _die_with(guardian)
    # A flow may name modules that lie where the worker was started; they come last, so that they shadow nothing.
    installed = len(sys.path)
    sys.path.append(str(Path.cwd()))
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    sys.argv = ["pyoco-run"]
    try:
        Child(sock, installed).main()
    except OSError:
        os._exit(LOST_WORKER)
    except Exception:
        traceback.print_exc()
        raise
