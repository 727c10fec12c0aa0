"""The end of a run's process: what a Python program waits for is waited for, up to a limit; nothing outlives it."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import System

from .conftest import FAST, Module, log_of, output, shared_memory

pytestmark = pytest.mark.usercode

LATE = {
    "an atexit function": "atexit.register(print, 'LATE')",
    "a thread": "threading.Thread(target=lambda: (time.sleep(0.4), print('LATE'))).start()",
    "an executor": "executor.submit(lambda: (time.sleep(0.4), print('LATE')))",
    "a finalizer": "weakref.finalize(executor, print, 'LATE')",
    "a child process": "multiprocessing.get_context('fork').Process(target=late).start()",
    "a handler of logging": "logging.getLogger('mine').addHandler(Late())",
}
IMPORTS = """
import atexit, concurrent.futures, logging, multiprocessing, threading, time, weakref
executor = concurrent.futures.ThreadPoolExecutor(1)
def late():
    time.sleep(0.4)
    print('LATE', flush=True)
class Late(logging.Handler):
    def close(self):
        print('LATE')
"""


@pytest.mark.parametrize("what", LATE)
def test_what_is_late_is_waited_for(system: System, isolation: str, module: Callable[..., Module], what: str) -> None:
    if isolation == "shared" and what in ("an atexit function", "a finalizer", "a handler of logging"):
        pytest.skip("documented: these wait for the end of the process, which other runs use before")
    run = module(f"{IMPORTS}\ndef t():\n    {LATE[what]}\n    return 1\n").run(isolation)
    assert output(run) == 1
    assert "LATE" in log_of(system, run)


ENDLESS = {
    "a thread": ("threading.Thread(target=time.sleep, args=(600,), name='poller').start()", "the threads poller"),
    "an atexit function": ("atexit.register(time.sleep, 600)", "its atexit functions"),
}


@pytest.fixture(scope="module")
def impatient(system: System) -> Iterator[str]:
    """The tag of a worker that waits half a second."""
    system.worker(worker_id="impatient", tags="impatient", PYOCO_RUN_EXIT_WAIT_SEC="0.5", **FAST)
    yield "impatient"


@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_end_is_named(system: System, module: Callable[..., Module], what: str, impatient: str) -> None:
    act, named = ENDLESS[what]
    run = module(f"import atexit, threading, time\ndef t():\n    {act}\n    return 1\n").run(impatient)
    assert output(run) == 1
    log = log_of(system, run)
    assert "was ended 0.5 s after its last task (PYOCO_RUN_EXIT_WAIT_SEC)" in log
    assert named in log


def test_a_process_that_is_left_is_named_and_ended(
    system: System, isolation: str, module: Callable[..., Module]
) -> None:
    run = module("import subprocess\ndef t():\n    return subprocess.Popen(['sleep', '600']).pid\n").run(isolation)
    pid = output(run)
    assert f"(process {pid})" in log_of(system, run)
    assert output(module(f"import os\ndef t(): return os.path.exists('/proc/{pid}')").run(isolation)) is False


def test_an_exit_code_after_the_last_task_is_told(module: Callable[..., Module]) -> None:
    run = module("import atexit, os\ndef t():\n    atexit.register(os._exit, 3)\n    return 1\n").run("process")
    assert (run["status"], run["end_reason"]) == ("FAILED", "child_exited")
    assert run["error"] == "the process of the run ended with exit code 3 after its tasks had ended"


MEMORY = "from multiprocessing.shared_memory import SharedMemory\nimport os, signal, subprocess, sys, time\n"
SHARED_MEMORY = {
    "created": "return SharedMemory(create=True, size=20_000_000).name",
    "attached twice": ("name = SharedMemory(create=True, size=20_000_000).name\n    return SharedMemory(name).name"),
    "by a subprocess": (
        "code = 'from multiprocessing.shared_memory import SharedMemory as S; S(create=True, size=20_000_000)'\n"
        "    return subprocess.Popen([sys.executable, '-c', code + '; import time; time.sleep(600)']).pid"
    ),
    "before an exit": "SharedMemory(create=True, size=20_000_000)\n    os._exit(3)",
    "before a crash": "SharedMemory(create=True, size=20_000_000)\n    os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("way", SHARED_MEMORY)
def test_shared_memory_does_not_outlive_the_run(isolation: str, module: Callable[..., Module], way: str) -> None:
    before = shared_memory()
    for _ in range(3):
        module(f"{MEMORY}def t():\n    {SHARED_MEMORY[way]}\n").run(isolation)
    module("def t(): pass").run(isolation)  # what ended before it begins is gone
    assert shared_memory() <= before


def test_shared_memory_of_a_cancelled_run_is_gone(
    system: System, isolation: str, module: Callable[..., Module]
) -> None:
    before = shared_memory()
    made = module(
        f"{MEMORY}signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "def t():\n    kept = SharedMemory(create=True, size=20_000_000)\n    time.sleep(600)\n"
    )
    run_id = system.client.submit_run_yaml(made.flow(), flow_name="main", tag=isolation)["run_id"]
    deadline = time.monotonic() + 20
    while shared_memory() <= before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    system.client.cancel_run(run_id)
    assert system.end(run_id)["status"] == "CANCELLED"
    module("def t(): pass").run(isolation)
    assert shared_memory() <= before


def test_signals_can_be_handled_in_every_graph(isolation: str, module: Callable[..., Module]) -> None:
    code = """
        import signal, threading
        def t():
            heard = []
            signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
            signal.raise_signal(signal.SIGALRM)
            return [heard, threading.current_thread() is threading.main_thread()]
        a = b = c = t
    """
    for graph in ("t", "repeat(count=2) { t }", "a >> b >> t"):
        names = tuple(name for name in "abt" if name in graph.replace("repeat", "").replace("count", ""))
        assert output(module(code, graph).run(isolation, *names)) == [[1], True]


def test_the_signals_that_a_run_gets_are_pythons_own(module: Callable[..., Module]) -> None:
    code = "import signal\ndef t():\n    return [str(signal.getsignal(s)) for s in (2, 15, 1, 17)]\n"
    found = output(module(code).run("process"))
    assert "default_int_handler" in found[0]
    assert found[1:] == [str(signal.getsignal(signal.SIGCHLD))] * 3 or all("SIG_DFL" in word for word in found[1:])
