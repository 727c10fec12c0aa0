"""What both systems' workers run; imports nothing of either."""

import json
import os
import time
from pathlib import Path

from pyoco import Flow, task

JOURNAL = Path(__file__).with_name("journal.jsonl")


def note(n, by):
    handle = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (json.dumps({"n": n, "by": by, "at": time.time()}) + "\n").encode())
    finally:
        os.close(handle)


def double(n=0, sec=0.0, fails=False):
    note(n, os.getpid())
    time.sleep(sec)
    if fails:
        raise ValueError(f"task {n} fails")
    return 2 * n


def text(double):
    return f"v={double}"


@task
def by_name(ctx, n=0, sec=0.0):
    return double(n, sec)


def resolve(name):
    if name != "byname":
        raise KeyError(name)
    flow = Flow("byname")
    flow >> by_name
    return flow
