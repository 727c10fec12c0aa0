"""What stands between a run's process and the rest of the machine: its user, and its confinement.

Made ready once in the template, tried there in a process of its own, and put up in each process that is forked.
"""

import contextlib
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pyoco_server
from pyoco_server.worker.child.confinement.confinement import Confinement
from pyoco_server.worker.child.confinement.linux import set_dumpable
from pyoco_server.worker.child.confinement.task_user import TaskUser

_TRIAL_SEC = 20.0
_LONGEST = 4096
_RARE_MODULE = "colorsys"
"""Of the standard library, and loaded by nothing: whoever can import it can read the interpreter's files."""


class NoBarrier(Exception):
    """It cannot be put up here; the message says why."""


class Barrier:
    """Keeps runs' processes apart.

    Args:
        confine: Whether they are to be confined.
        run_as: The name of their user; ``None``: the worker's own.

    Raises:
        NoBarrier: there is no such user.
    """

    def __init__(self, *, confine: bool, run_as: str | None) -> None:
        try:
            self._user = TaskUser.named(run_as) if run_as else None
        except LookupError:
            raise NoBarrier(f"--run-as {run_as}: there is no such user on this machine") from None
        uid = self._user.uid if self._user else os.geteuid()
        self._confinement = Confinement(root=uid == 0) if confine else None
        if self._confinement is not None:
            set_dumpable(False)  # whoever could change this process's memory would be in all of its runs

    def give_streams(self, descriptors: Sequence[int]) -> None:
        """Return pipes to the user, who else could not open them again, as ``/dev/stdout``."""
        if self._user is not None:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.fchown(descriptor, self._user.uid, self._user.gid)

    def change_user(self) -> None:
        """Become the user, in a process that was forked for runs.

        Raises:
            OSError: this process may not.
        """
        if self._user is not None:
            self._user.become()
        if self._user is not None or self._confinement is not None:
            set_dumpable(True)  # its own files in /proc are its own again

    def filter_calls(self, *, asking: bool = True) -> int | None:
        """Filter the calls of this process, before it forks others; nothing is loaded here any more afterwards.

        Args:
            asking: Whether this process will answer the calls of others about others.

        Returns:
            The descriptor on which they come; ``None`` for none.

        Raises:
            OSError: they cannot be filtered.
        """
        return self._confinement.filter_calls(asking=asking) if self._confinement is not None else None

    def put_up(self) -> None:
        """Shut this process off; what it needs of others must be open by now.

        Raises:
            OSError: Linux refuses it.
        """
        if self._confinement is not None:
            self._confinement.enter()

    def try_out(self, environment: str | None, runs: str) -> None:
        """Put it up in a process of its own, and look from there at what runs need.

        Args:
            environment: Directory of the wheel environment.
            runs: Where the directories of runs are made.

        Raises:
            NoBarrier: it cannot be put up, or runs could not work behind it.
        """
        if self._user is None and self._confinement is None:
            return
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._report_trial(writing, environment, runs)
        os.close(writing)
        try:
            ready, _, _ = select.select([reading], [], [], _TRIAL_SEC)
            said = os.read(reading, _LONGEST).decode(errors="replace") if ready else "it does not answer"
            if said == "fine":
                self._try_to_end(pid)
        finally:
            os.close(reading)
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if said != "fine":
            raise NoBarrier(said or "the process in which it was tried out has ended at once")

    def _report_trial(self, writing: int, environment: str | None, runs: str) -> None:
        """Say how the trial went, and wait to be ended."""
        try:
            said = self._trial(environment, runs)
        except BaseException as error:  # noqa: BLE001 - nothing may unwind into the template
            said = f"runs cannot be confined here: {type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            os.write(writing, (said or "fine").encode()[:_LONGEST])
        signal.sigtimedwait([], _TRIAL_SEC)
        os._exit(0)

    def _trial(self, environment: str | None, runs: str) -> str | None:
        if self._user is not None:
            who = f"--run-as {self._user.name}"
            runs_are_there = Path(runs).exists()
            interpreter, package = Path(sys.executable).resolve(), Path(pyoco_server.__file__).resolve()
            try:
                self.change_user()
            except OSError as error:
                return f"{who}: this worker may not change its user ({error.strerror}): start it as root, or without"
            for what, place in (("the interpreter", interpreter), ("the worker's package", package)):
                if not os.access(place, os.R_OK):
                    return f"{who}: this user cannot read {what}: {_closed(str(place))}"
            sys.modules.pop(_RARE_MODULE, None)
            importlib.import_module(_RARE_MODULE)
            if environment is not None and not os.access(environment, os.R_OK | os.X_OK):
                return f"{who}: this user cannot read the wheels' environment: {_closed(environment)}"
            if environment is not None and os.access(environment, os.W_OK):
                return f"{who}: this user may change the wheels' environment, which later runs use: {environment}"
            if runs_are_there and not os.access(runs, os.X_OK):
                return f"{who}: this user cannot enter the directory of its runs (PYOCO_STATE_DIR): {_closed(runs)}"
        self.put_up()
        return None

    def _try_to_end(self, pid: int) -> None:
        try:
            os.kill(pid, 0)
        except PermissionError:
            name = self._user.name if self._user else ""
            raise NoBarrier(f"--run-as {name}: this worker could not end that user's processes (CAP_KILL)") from None


def _closed(place: str) -> str:
    """Name the first directory above a place that cannot be entered, or the place itself."""
    path = Path(place)
    for parent in reversed(path.parents):
        if not os.access(parent, os.X_OK):
            return f"{place} lies in {parent}, which it may not enter"
    return place
