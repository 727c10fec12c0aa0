"""Inside a run's own process: runs a job with pyoco's engine and reports over the socket.

User code runs here and only here. It may block, exit, crash or print whatever it likes.
"""

import os
import queue
import select
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from pyoco.core.models import Flow, RunContext, RunStatus

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.run import EndReason
from pyoco_server.model.text.clean import clean_text
from pyoco_server.worker.child.flow.carried import see_places
from pyoco_server.worker.child.flow.exposure import Mask, exposed_by
from pyoco_server.worker.child.flow.flows import BadResolver, FlowProblem, FlowSource, load_resolver
from pyoco_server.worker.child.freshness import changed_since_import, forget_directories
from pyoco_server.worker.child.leaving import (
    AtTheEnd,
    as_at_the_end,
    has_children,
    unfinished_processes,
    unfinished_threads,
)
from pyoco_server.worker.child.loading import loading
from pyoco_server.worker.child.output.taskoutput import TaskOutput
from pyoco_server.worker.child.protocol import LOST_WORKER, Message, encode, receive_message
from pyoco_server.worker.child.restoring import ProcessState
from pyoco_server.worker.child.subprocesses import show_to_subprocesses
from pyoco_server.worker.child.tasks.coroutines import coroutines_run
from pyoco_server.worker.child.tasks.engine import RunEngine
from pyoco_server.worker.child.tasks.failures import (
    describe_exception,
    end_reason,
    note_environment,
    summarise,
    where_raised,
)
from pyoco_server.worker.child.tasks.forks import end_fork, forks_kept_out
from pyoco_server.worker.child.tasks.reporter import TaskReporter
from pyoco_server.worker.child.tasks.retries import RunStopped, supervised, tasks_of
from pyoco_server.worker.child.warming import warm_up


class Runner:
    """A job comes in, its story goes out; with ``shared`` isolation the next one follows.

    Args:
        sock: To the worker.
        output: What tasks print.
        installed: How many entries of ``sys.path`` are the worker's own.
        setup: What the worker said of all runs.
    """

    def __init__(self, sock: socket.socket, output: TaskOutput, installed: int, setup: Message) -> None:
        self._socket = sock
        self._output = output
        self._installed = installed
        self._environment: str | None = setup["environment"]
        self._shared = setup["isolation"] == "shared"
        self._pid = os.getpid()
        self._sending = threading.Lock()
        self._leaving = threading.Lock()
        self._jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._job: Message = {}
        self._context: RunContext | None = None
        self._cancelled: str | None = None
        self._baseline = AtTheEnd()
        self._flows: FlowSource | None = None
        self._resolver: str | Message | None = None

    @classmethod
    def on(cls, descriptors: list[int], setup: Message, installed: int) -> "Runner":
        """Return a runner on what the worker sent: a socket, a pipe for frames, and what becomes stdout and stderr."""
        sock, frames, *plain = descriptors
        for descriptor, place in zip(plain, (1, 2), strict=True):
            os.dup2(descriptor, place)
            os.close(descriptor)
        os.set_inheritable(sock, False)
        # A flow may name modules that lie where the worker was started; they come last, so that they shadow nothing.
        sys.path.append(setup["directory"])
        note_environment(setup["environment"])
        forget_directories()
        output = TaskOutput(frames)
        output.install()
        return cls(socket.socket(fileno=sock), output, installed, setup)

    def serve(self) -> None:
        """Take jobs until the process has served its time; it does not return."""
        if not select.select([self._socket], [], [], 0)[0]:  # there is time: the job comes later
            warm_up()
        state = ProcessState() if self._shared else None
        first = receive_message(self._socket)
        if first is None:
            os._exit(LOST_WORKER)
        if first["type"] == "try":
            self._try_resolver(first)
        self._jobs.put(first)
        self._run_control()
        baseline = threading.active_count()
        while True:
            self._job = job = self._jobs.get()
            result = self._run(job)
            if os.getpid() != self._pid:  # forked outside of a task: by a module that was imported, or a resolver
                end_fork(None)
            spent = result.get("reason") == EndReason.OUT_OF_MEMORY.value  # what it still holds, nobody knows
            if state is None or spent or threading.active_count() > baseline or has_children() or state.restore():
                self._leave(result)
            self._output.end()
            self._send({**result, "reusable": True})

    def _run_control(self) -> None:
        threading.Thread(target=self._read, name="pyoco-control", daemon=True).start()

    def _send(self, message: Message) -> None:
        """Send a message of the current run; from any thread, and never from a fork."""
        if os.getpid() != self._pid:
            return
        named = {**message, "run_id": self._job.get("run_id"), "attempt": self._job.get("attempt")}
        with self._sending:
            try:
                self._socket.sendall(encode(named))
            except OSError:
                os._exit(LOST_WORKER)  # nobody would hear the result

    def _read(self) -> None:
        while (message := receive_message(self._socket)) is not None:
            if message["type"] == "run":
                self._jobs.put(message)
            elif message["type"] == "fresh":
                self._send({"type": "fresh", "changed": changed_since_import()})
            elif message["type"] == "cancel":
                self._cancelled = message["run_id"]
                context = self._context
                if context is not None and context.run_id == message["run_id"]:
                    context.status = RunStatus.CANCELLING
        # The worker is gone, or user code closed the socket: nobody would hear the result. The guardian does the rest.
        os._exit(LOST_WORKER)

    def _try_resolver(self, message: Message) -> None:
        """Say whether the resolver loads, and end."""
        error, trace = None, ""
        try:
            with loading():
                load_resolver(message["resolver"])
        except BadResolver as bad:
            error = str(bad)
        except BaseException as raised:  # noqa: BLE001 - whatever a user's module raises on import, SystemExit too
            error, trace = summarise(raised), where_raised(raised)
        self._output.end()
        self._send({"type": "tried", "error": error, "trace": trace})
        os._exit(0)

    def _run(self, job: Message) -> Message:
        self._output.begin()
        self._send({"type": "begun"})  # from here on, whatever happens is the run's own
        params = job["params"]
        try:
            with loading():
                flows = self._flow_source(job["resolver"])
                if job.get("workflow_yaml") is not None:
                    flow, params = flows.from_yaml(job["workflow_yaml"], job["flow_name"], params)
                else:
                    flow = flows.from_resolver(job["flow_name"], params)
        except FlowProblem as error:
            return _failed(error.reason, str(error), error, task=error.task)
        except InvalidFlow as error:
            return _failed(EndReason.INVALID_FLOW, f"{error.message}. {error.hint}".rstrip(" ."), error)
        except BaseException as error:  # noqa: BLE001 - a resolver is user code and may raise anything
            if os.getpid() != self._pid:
                end_fork(error)
            told = describe_exception(error)
            return _failed(EndReason.INVALID_FLOW, f"making the flow raised {told['error']}", None, details=told)
        directory = Path(job["directory"])
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chdir(directory)
        except OSError as error:
            text = f"the run's working directory {directory} could not be made: {error.strerror}"
            return _failed(EndReason.CHILD_EXITED, text, None)
        return self._execute(job["run_id"], flow, params, job["max_value_bytes"])

    def _flow_source(self, resolver: str | Message | None) -> FlowSource:
        """Return what makes flows; the resolver is had for the first run of this process, or when it has changed."""
        if self._flows is None or resolver != self._resolver:
            self._flows = FlowSource(load_resolver(resolver) if resolver else None)
            self._resolver = resolver
        elif isinstance(resolver, dict):  # the path is what it was before the last run
            see_places(resolver)
        show_to_subprocesses(sys.path[self._installed :], self._environment)
        return self._flows

    def _execute(self, run_id: str, flow: Flow, params: dict[str, Any], max_value_bytes: int) -> Message:
        context = RunContext(run_id=run_id, flow_name=flow.name)
        self._context = context
        mask = Mask(exposed_by(flow))
        reporter = TaskReporter(self._send, context, max_value_bytes, self._output.announce, mask)
        limits = {task.name: task.timeout_sec for task in tasks_of(flow) if task.timeout_sec}
        self._send({"type": "planned", "tasks": sorted(task.name for task in flow.tasks), "timeouts": limits})
        if self._cancelled == run_id:  # told while the flow was still being made
            context.status = RunStatus.CANCELLING
        try:
            with coroutines_run(flow), forks_kept_out(flow), supervised(flow, context, reporter):
                RunEngine(trace_backend=reporter).run(flow, params=params, run_context=context)
            if context.status is RunStatus.COMPLETED:
                reporter.tell_unread(self._output.notice)
        except RunStopped:
            return {"type": "finished", "outcome": "cancelled"}
        except BaseException as error:  # noqa: BLE001 - sys.exit and KeyboardInterrupt in a task end the run, not us
            if os.getpid() != self._pid:
                end_fork(error)
            task = reporter.task_that_raised(error)
            told = mask.other(describe_exception(error))
            where = f"task {task!r} failed: " if task else ""
            text = f"{where}{told['error']}{reporter.count_tries(task)}"
            return _failed(end_reason(error), text, None, details=told, raised_in=task)
        finally:
            self._context = None
            reporter.close()
        # pyoco leaves the status at CANCELLING when the request met the last task.
        ended = context.status in (RunStatus.CANCELLING, RunStatus.CANCELLED)
        return {"type": "finished", "outcome": "cancelled" if ended else "completed"}

    def _leave(self, result: Message) -> None:
        """End this process as a Python program ends, and say how the run ended as the last word."""
        if self._baseline.may_take_time():
            limit = self._job["exit_wait_sec"]
            overdue = threading.Timer(limit, self._give_up, (result, limit))
            overdue.daemon = True
            overdue.start()
        as_at_the_end()
        self._say_last(result)

    def _give_up(self, result: Message, limit: float) -> None:
        names = unfinished_threads()
        what = f"the threads {', '.join(names)}" if names else "its atexit functions"
        self._output.notice(
            f"the run's process was ended {limit:g} s after its last task (PYOCO_RUN_EXIT_WAIT_SEC), "
            f"though it still waited for {what}"
        )
        self._say_last(result)

    def _say_last(self, result: Message) -> None:
        self._leaving.acquire()  # never given back: one of us says it, and neither survives it
        if has_children() and (left := unfinished_processes()):
            self._output.notice(f"processes that the run started and did not wait for are ended: {', '.join(left)}")
        self._output.end()
        self._send({**result, "reusable": False})
        os._exit(0)


def _failed(
    reason: EndReason,
    message: str,
    error: BaseException | None,
    task: str | None = None,
    *,
    details: Message | None = None,
    raised_in: str | None = None,
) -> Message:
    """Return the last word on a run that failed.

    Args:
        reason: How it is called.
        message: Why, in a sentence.
        error: Ours; behind it may be an exception of the user's.
        task: The task at fault, of which nothing has been told yet.
        details: What is known of an exception of the user's.
        raised_in: The task that failed with it and has told so itself.
    """
    result: Message = {
        "type": "finished",
        "outcome": "failed",
        "reason": reason.value,
        "error": clean_text(message),
        "task": task,
        "raised_in": raised_in,
    }
    if error is not None and error.__cause__ is not None:
        details = describe_exception(error.__cause__)
    if details is not None:
        result["details"] = details
    return result
