"""What a run needs of its worker's machine before it begins: directories that can be used, and the worker's program."""

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

import pyoco_server
from pyoco_server.errors import PyocoError
from pyoco_server.model.worker import TroubleKind
from pyoco_server.worker.child.confinement.task_user import TaskUser
from pyoco_server.worker.wheels.environments import Environment

_PROBE = ".probe-"
_PROBE_BYTES = 4096
"""A block: where the disk has none left, the names of directories may still find a place."""
_ARTIFACTS = "artifacts"
_PASS, _LIST = 0o011, 0o066
_KEPT_SEC = 7 * 24 * 3600.0
_OUT_OF_HANDLES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class MachineFault(PyocoError):
    """This machine cannot begin a run now; the run itself has nothing to do with it.

    Args:
        kind: What is at fault.
        message: Why, in one sentence.
    """

    code = "machine_fault"

    def __init__(self, kind: TroubleKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Machine:
    """The places that a worker needs. Its calls may block for as long as the file system does.

    Args:
        runs: Where the directories of runs are made.
        start: The directory in which the worker was started: what runs import lies there, and children start there.
        owner: The user of runs' processes, where it is not the worker's.
    """

    def __init__(self, runs: Path, start: Path, owner: TaskUser | None = None) -> None:
        self.runs = runs
        self._owner = owner
        self._start = start
        self._program = [part for part in (Path(sys.executable), Path(pyoco_server.__file__)) if _is_there(part)]
        self.moves = 0
        """How often another directory was found in the start directory's place: older processes are not in it."""

    def probe(self, environment: Environment | None = None) -> None:
        """Look whether a run could begin: what it needs is made once, and removed again.

        Args:
            environment: The wheel environment in use.

        Raises:
            MachineFault: it could not.
        """
        self.look_for(environment)
        try:
            self._make_runs()
            place = Path(tempfile.mkdtemp(prefix=_PROBE, dir=self.runs))
            try:
                (place / _ARTIFACTS).mkdir()
                (place / "file").write_bytes(b"\0" * _PROBE_BYTES)
            finally:
                shutil.rmtree(place)
        except OSError as error:
            raise self._unusable(error) from error

    def look_for(self, environment: Environment | None) -> None:
        """Look whether what a run imports from is there.

        Args:
            environment: The wheel environment in use.

        Raises:
            MachineFault: something is not.
        """
        self._enter_start()
        for part in self._program:
            if not _is_there(part):
                raise MachineFault(TroubleKind.PROGRAM, f"the worker's own program is gone: {part} does not exist")
        flaw = environment.flaw() if environment is not None else None
        if environment is not None and flaw is not None:
            text = f"the directory of its wheels {flaw}, and is made anew: {environment.directory}"
            raise MachineFault(TroubleKind.ENVIRONMENT, text)

    def run_directory(self, run_id: str, attempt: int) -> Path:
        """Return where an attempt works."""
        return self.runs / f"{run_id}-{attempt}"

    def make_run_directory(self, run_id: str, attempt: int) -> Path:
        """Make the working directory of one attempt, and what pyoco makes in it before it calls the first task.

        Raises:
            MachineFault: it cannot be made.
        """
        place = self.run_directory(run_id, attempt)
        try:
            if self._owner is not None:
                self._make_runs()
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            (place / _ARTIFACTS).mkdir(exist_ok=True)
            if self._owner is not None:
                for made in (place / _ARTIFACTS, place):
                    os.chown(made, self._owner.uid, self._owner.gid)
        except OSError as error:
            drop_run_directory(place)
            raise self._unusable(error) from error
        return place

    def _make_runs(self) -> None:
        """Make the directory of runs; where another user works there, it may pass through, and see nothing."""
        self.runs.mkdir(parents=True, exist_ok=True)
        if self._owner is None:
            return
        for place, hidden in ((self.runs.parent, 0), (self.runs, _LIST)):
            mode = stat.S_IMODE(place.stat().st_mode)
            if (wanted := (mode | _PASS) & ~hidden) != mode:
                place.chmod(wanted)

    def sweep(self) -> None:
        """Remove run directories that were kept for their artifacts long enough.

        Raises:
            MachineFault: they cannot be looked at.
        """
        try:
            if not self.runs.is_dir():
                return
            for path in self.runs.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another worker here has just removed it
                    if time.time() - path.stat().st_mtime > _KEPT_SEC:
                        shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _enter_start(self) -> None:
        """Look whether the start directory is there; if another one has its name now, enter that one."""
        try:
            named = self._start.stat()
            if not stat.S_ISDIR(named.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self._start))
            if not os.access(self._start, os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._start))
            if not os.path.samestat(named, Path().stat()):
                os.chdir(self._start)
                self.moves += 1
        except OSError as error:
            raise MachineFault(
                TroubleKind.START_DIRECTORY,
                f"the directory in which the worker was started cannot be used: {describe(error)}",
            ) from error

    def _unusable(self, error: OSError) -> MachineFault:
        if error.errno in _OUT_OF_HANDLES:
            return MachineFault(
                TroubleKind.PROCESS, f"the worker can open no more files: {describe(error, path=False)}"
            )
        # Not the path of the error: it may name a run, and who sees this may not know of it.
        text = f"run directories cannot be made in {self.runs} (PYOCO_STATE_DIR)"
        return MachineFault(TroubleKind.STATE_DIRECTORY, f"{text}: {describe(error, path=False)}")


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:  # also where we may not look any more
        return False
    return True


def drop_run_directory(place: Path) -> None:
    """Remove the working directory of an attempt that left nothing in it; one with something in it is kept."""
    for empty in (place / _ARTIFACTS, place):
        with contextlib.suppress(OSError):
            empty.rmdir()


def no_process(error: OSError) -> MachineFault:
    """Return the fault of a machine on which no process could be started."""
    return MachineFault(TroubleKind.PROCESS, f"no process for a run can be started: {describe(error)}")


def describe(error: OSError, *, path: bool = True) -> str:
    """Return what an error of the system says, with its symbolic name."""
    name = errno.errorcode.get(error.errno or 0)
    text = (error.strerror or str(error) or type(error).__name__) + (f" ({name})" if name else "")
    return f"{error.filename}: {text}" if path and error.filename else text
