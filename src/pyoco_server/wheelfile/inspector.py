"""In a process of its own: looks into wheels, so that whatever they hold costs nobody else time or memory.

It says which wheel it looks at before it does, so that one that takes the process with it is known too.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pyoco_server.errors import InvalidInput
from pyoco_server.model.wheels.file_name import parse_wheel_name
from pyoco_server.wheelfile.conflicts import Layout, claims_of, compare
from pyoco_server.wheelfile.content import check_wheel

MEMORY = 2 << 30
"""Bytes of address space that it may take, its program included."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Entry point: ``argv`` holds the parent's process id; what to look at comes over standard input."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)
    layouts: dict[int, Layout] = {}
    with ExitStack() as opened:
        for number, wheel in enumerate(asked["wheels"]):
            _tell({"looking_at": number})
            try:
                layout, requires_python = _look(opened, wheel, asked["max_bytes"])
                layouts[number] = layout
                _tell({"requires_python": requires_python, "claims": claims_of(layout)})
            except InvalidInput as error:
                _tell({"reason": error.message, "hint": error.hint, "is_final": True})
            except OSError as error:
                _tell({"reason": f"it cannot be read: {error.strerror or error}"})
            except MemoryError:
                _tell({"reason": f"to look into it takes more than {MEMORY} bytes of memory"})
            except Exception as error:  # noqa: BLE001 - whatever somebody uploaded: it must not hide the others
                _tell({"reason": f"it cannot be looked into: {type(error).__name__}: {str(error)[:200]}"})
        _tell({"conflicts": compare(layouts, lambda number: _tell({"comparing": number}))})
    os._exit(0)


def _look(opened: ExitStack, wheel: dict[str, Any], max_bytes: int) -> tuple[Layout, str | None]:
    name = parse_wheel_name(wheel["name"])
    file = opened.enter_context(_open(wheel["file"]))
    content = check_wheel(file, name, max_bytes, read_all=wheel["read_all"])
    archive = opened.enter_context(zipfile.ZipFile(file))
    return Layout(name.file_name, content.places, archive, wheel["stored_at"], wheel["since"]), content.requires_python


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    with Path(path).open("rb") as file:
        yield file


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
