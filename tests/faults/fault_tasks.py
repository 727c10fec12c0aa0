"""What the workers run: copied beside them, so that it must not import anything of ours."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

HERE = Path(__file__).parent
JOURNAL = HERE / "journal.jsonl"


def note(what, **fields):
    """Append a line to the journal: one write, so that lines never mix."""
    run_id, _, attempt = Path.cwd().name.rpartition("-")  # a run's directory is named after run and attempt
    line = {"what": what, "run_id": run_id, "attempt": int(attempt), "pid": os.getpid(), "at": time.time(), **fields}
    handle = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (json.dumps(line) + "\n").encode())
    finally:
        os.close(handle)
    return line


def started(pid):
    """Give a living process's start time; None for one that is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def worker():
    """Give the worker's pid: the ancestor that was started with a worker id."""
    pid = os.getpid()
    while b"--worker-id" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if pid <= 1:
            return None  # a worker inside a test's own process
    return pid


def begin():
    """Note the start, and any earlier execution of this run that still lives."""
    me = note("start", born=started(os.getpid()), worker=worker())
    going = {}
    whole, _, _ = JOURNAL.read_text().rpartition("\n")  # another's line may be on its way
    for text in whole.splitlines():
        event = json.loads(text)
        if event["run_id"] == me["run_id"]:
            if event["what"] == "start" and (event["pid"], event["at"]) != (me["pid"], me["at"]):
                going[event["attempt"], event["pid"]] = event
            elif event["what"] == "end":
                going.pop((event["attempt"], event["pid"]), None)
    for event in going.values():
        if event["born"] is not None and started(event["pid"]) == event["born"]:
            note("overlap", other=f"attempt {event['attempt']} in process {event['pid']}")


def end():
    """Note the end and give the result that only this execution has."""
    result = uuid.uuid4().hex
    note("end", result=result)
    return result


def work(seconds):
    """Take some time."""
    begin()
    time.sleep(seconds)
    return end()


def say(seconds):
    """Take some time, and print whose it was."""
    begin()
    print(Path.cwd().name, flush=True)
    time.sleep(seconds)
    return end()


def talk(gate):
    """Print numbers until somebody makes the file."""
    begin()
    number = 0
    while not (HERE / gate).exists():
        print(number, flush=True)
        number += 1
        time.sleep(0.1)
    note("said", lines=number)
    return end()


def gated(gate):
    """Run until somebody makes the file."""
    begin()
    while not (HERE / gate).exists():
        time.sleep(0.02)
    return end()


def first_only(gate):
    """Hang in the first attempt until somebody makes the file; later attempts end at once."""
    begin()
    if Path.cwd().name.endswith("-1"):
        while not (HERE / gate).exists():
            time.sleep(0.02)
    return end()


def kill_worker():
    """Kill the worker that runs this."""
    begin()
    os.kill(worker(), signal.SIGKILL)
    time.sleep(600)


def busy():
    """Never give the interpreter back of one's own will."""
    begin()
    while True:
        pass


def blocking():
    """Block in C, holding the interpreter's lock, so that no Python signal handler runs."""
    begin()
    ctypes.PyDLL(None).sleep(600)


def stubborn():
    """Ignore every signal that can be ignored: with C's signal(), because Python's works in the main thread only."""
    begin()
    ignore = ctypes.c_void_p(1)
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        ctypes.CDLL(None).signal(int(sig), ignore)
    while True:
        time.sleep(1)


_FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        if sys.argv[1] == "setsid":
            os.setsid()
        break
with open(sys.argv[2], "a") as place:
    place.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def family(place, how):
    """Fork children and grandchildren that ignore SIGTERM; with ``setsid`` they leave the group and the session."""
    begin()
    subprocess.Popen([sys.executable, "-c", _FAMILY, how, str(HERE / place)], start_new_session=how == "setsid")
    while True:
        time.sleep(1)


def daemon(place):
    """Fork twice with setsid, as daemons do: the grandchild's parent is gone and it is in no group of ours."""
    begin()
    code = (
        "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\n"
        "if os.fork(): os._exit(0)\nopen(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\ntime.sleep(600)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(HERE / place)])
    while True:
        time.sleep(1)


def raises():
    """End with an exception."""
    begin()
    raise ValueError("as injected")


def exits():
    """End the process with a code."""
    begin()
    os._exit(3)


def segfault():
    """Read where nothing is."""
    begin()
    ctypes.string_at(0)


def eat_memory():
    """Ask for memory until there is none."""
    begin()
    kept = []
    while True:
        kept.append(bytearray(16 * 1024 * 1024))
