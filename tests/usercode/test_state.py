"""What one run sets of its process, no later run finds: more than 30 kinds of state, each on a real worker."""

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import System

from .conftest import Module, output

pytestmark = pytest.mark.usercode

# By kind: what a run does, and an expression that the next run evaluates; it must be the same as in the first one,
# evaluated before it was done.
STATE: dict[str, tuple[str, str]] = {
    "environment": ("os.environ['DB_PASSWORD'] = 'x'", "os.environ.get('DB_PASSWORD')"),
    "environment, removed": ("os.environ.pop('PATH')", "'PATH' in os.environ"),
    "environment, replaced": ("os.environ = {}", "type(os.environ).__name__"),
    "time zone": ("os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()", "time.tzname[0]"),
    "working directory": ("os.chdir('/usr')", "os.getcwd() == '/usr'"),
    "umask": ("os.umask(0o777)", "os.umask(0o22)"),
    "interval timer": ("signal.setitimer(signal.ITIMER_REAL, 60)", "signal.getitimer(signal.ITIMER_REAL)"),
    "alarm": ("signal.alarm(60)", "signal.alarm(0)"),
    "signal handler": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "int(signal.getsignal(signal.SIGTERM))"),
    "signal mask": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])",
        "len(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    ),
    "limit": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)[1]",
    ),
    "priority": ("os.nice(5)", "os.nice(0)"),
    "stdout, descriptor": (
        "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
        "os.path.basename(os.readlink('/proc/self/fd/1'))[:4]",
    ),
    "stdout, closed": ("os.close(1)", "os.path.exists('/proc/self/fd/1')"),
    "stdout, object": ("sys.stdout = open('/dev/null', 'w')", "type(sys.stdout).__name__"),
    "import path": ("sys.path.insert(0, '/nowhere')", "'/nowhere' in sys.path"),
    "arguments": ("sys.argv.append('x')", "list(sys.argv)"),
    "root logger": ("logging.basicConfig(level=1, force=True)", "(logging.root.level, len(logging.root.handlers))"),
    "logging, disabled": ("logging.disable(50)", "logging.root.manager.disable"),
    "warnings": ("warnings.simplefilter('error')", "warnings.filters[0][0]"),
    "exception hook": ("sys.excepthook = print", "sys.excepthook is print"),
    "trace function": ("threading.settrace(lambda *_: None); sys.settrace(lambda *_: None)", "sys.gettrace() is None"),
    "recursion limit": ("sys.setrecursionlimit(5000)", "sys.getrecursionlimit()"),
    "garbage collection": ("gc.disable(); gc.set_threshold(1)", "(gc.isenabled(), gc.get_threshold())"),
    "random numbers": ("random.seed(1)", "random.seed.__name__ if random.random() != 0.13436424411240122 else 1"),
    "decimal context": ("decimal.getcontext().prec = 2", "decimal.getcontext().prec"),
    "socket time-out": ("socket.setdefaulttimeout(1)", "socket.getdefaulttimeout()"),
    "temporary directory": ("tempfile.tempdir = '/nowhere'", "tempfile.gettempdir()"),
    "locale": ("locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')", "locale.setlocale(locale.LC_NUMERIC)"),
    "patched function": ("time.sleep = print", "time.sleep is print"),
    "patched method": ("pathlib.Path.exists = print", "pathlib.Path.exists is print"),
    "patched engine": (
        "import pyoco.core.engine as e; e.Engine.run = print",
        "__import__('pyoco.core.engine').core.engine.Engine.run is print",
    ),
    "shadowed builtin": ("tempfile.open = print", "hasattr(tempfile, 'open')"),
    "hidden method": ("pathlib.PosixPath.exists = print", "pathlib.PosixPath.exists is print"),
    "patched builtin": ("builtins.dir = print", "builtins.dir is print"),
    "thread": ("threading.Thread(target=time.sleep, args=(600,), daemon=True).start()", "threading.active_count()"),
    "child process": ("subprocess.Popen(['sleep', '600'])", "open('/proc/thread-self/children').read()"),
    "open files": ("kept = [os.open('/dev/null', 0) for _ in range(200)]", "len(os.listdir('/proc/self/fd')) > 150"),
    "start method": (
        "multiprocessing.set_start_method('spawn', force=True)",
        "multiprocessing.get_start_method(allow_none=True)",
    ),
}
MODULES = (
    "builtins, decimal, gc, locale, logging, multiprocessing, os, pathlib, random, resource, signal, socket, "
    "subprocess, sys, tempfile, threading, time, warnings"
)


def twice(act: str, look: str) -> str:
    """A module whose task looks, and then acts if it is told to."""
    return f"import {MODULES}\ndef t(act):\n    seen = {look}\n    if act:\n        {act}\n    return seen\n"


@pytest.mark.parametrize("kind", STATE)
def test_the_next_run_finds_nothing_of_it(isolation: str, module: Callable[..., Module], kind: str) -> None:
    act, look = STATE[kind]
    made = module(twice(act, look))
    first = output(made.run(isolation, params={"act": True}))
    second = output(made.run(isolation, params={"act": False}))
    assert second == first


@pytest.mark.parametrize("kind", STATE)
def test_another_flow_finds_nothing_of_it(isolation: str, module: Callable[..., Module], kind: str) -> None:
    act, look = STATE[kind]
    clean = output(module(twice(act, look)).run(isolation, params={"act": False}))
    module(twice(act, look)).run(isolation, params={"act": True})
    assert output(module(twice(act, look)).run(isolation, params={"act": False})) == clean


def test_a_global_of_a_module_lives_as_long_as_its_isolation_says(
    isolation: str, module: Callable[..., Module]
) -> None:
    made = module("import os\nseen = []\ndef t():\n    seen.append(os.getpid())\n    return seen\n")
    first, second = output(made.run(isolation)), output(made.run(isolation))
    if isolation == "process":  # a process each, and nothing in it
        assert len(first) == len(second) == 1
        assert first != second
    else:  # the documented exception: that is what the process is kept for
        assert second == first * 2


def test_a_process_is_never_shared_between_flows(isolation: str, module: Callable[..., Module]) -> None:
    code = "import os\ndef t():\n    return os.getpid()\n"
    pids = [output(module(code).run(isolation)) for _ in range(3)]
    assert len(set(pids)) == 3


def test_the_record_and_the_worker_say_how_runs_are_kept_apart(
    system: System, isolation: str, module: Callable[..., Module]
) -> None:
    assert module("def t(): return 1").run(isolation)["isolation"] == isolation
    workers = {worker["worker_id"]: worker["isolation"] for worker in system.client.get_workers()}
    assert workers[isolation] == isolation
