"""Code of the user is being imported, to get at a run's flow: nothing of it may start a worker.

A script that starts one at its top level would start itself again, in a process of a run of that worker, and so on. The
word stands in the environment, so that a program which such a script starts knows it too.
"""

import contextlib
import os
from collections.abc import Iterator

from pyoco_server.errors import CommandFailed

_LOADING = "PYOCO_RUN_LOADS_FLOWS"


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Say that code is being imported or asked for a flow, for as long as it is."""
    os.environ[_LOADING] = "1"
    try:
        yield
    finally:
        os.environ.pop(_LOADING, None)


def refuse_while_loading() -> None:
    """Refuse to start a worker there.

    Raises:
        CommandFailed: this is such a place.
    """
    if os.environ.get(_LOADING):
        raise CommandFailed(
            "this code starts a worker when it is imported, and a worker imports it to find its flows; "
            'put what starts the worker under: if __name__ == "__main__":'
        )
