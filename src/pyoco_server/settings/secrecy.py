"""Secrets are read once: afterwards neither this process's environment nor its arguments show them.

A process whose memory another one of the same user may read has no secrets. So a gateway, a worker and the admin
command take themselves out of reach before they read their settings (Linux: not "dumpable": no ``ptrace``, no
``/proc/PID/mem`` and ``environ``, no core dump), and wipe what they were given from where the kernel shows it. Where
there is nothing to keep, they become as other processes are, so that debuggers and profilers see them.
"""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pyoco_server.settings.environment import Settings, is_secret, remember, without_secrets
from pyoco_server.settings.nats import ACCESS_FIELDS

_PR_SET_DUMPABLE = 4
_ARGUMENTS, _ENVIRONMENT = 45, 47
"""Where in ``/proc/self/stat``, behind the process's name, the bounds of these blocks of memory stand."""
_USER_IN_URL = re.compile(rb"(?<=://)[^\s/@,]+(?=@)")
_NO_SECRETS = {"nats_user", "nats_tls_ca", "nats_tls_cert"}
_hidden = False


def hide() -> None:
    """Keep other processes of this user from reading this one's memory; the first thing that a command does."""
    global _hidden  # noqa: PLW0603 - it is this process's
    _hidden = True
    _set_dumpable(0)


def show() -> None:
    """Let other processes of this user look at this one again."""
    _set_dumpable(1)


def keep_secrets(settings: Settings) -> None:
    """Wipe the secrets from where the kernel shows them, when the settings are read.

    Without ``hide`` before nothing is done: somebody else's program may need its environment. Settings that are read
    once more in this process have them all the same.

    Args:
        settings: What was read. Where nothing in them is to be kept secret, the process is shown again.
    """
    if not _hidden:
        return
    before = dict(os.environ)
    for name, value in before.items():
        kept = without_secrets({name: value})
        if kept == {name: value}:
            continue
        remember({name: value})
        if kept:
            os.environ.update(kept)
        else:
            del os.environ[name]
    if sys.platform == "linux":
        _change_block(_ENVIRONMENT, _wiped_variable)
        _change_block(_ARGUMENTS, _masked)
    if settings.http_auth_mode == "none" and before == dict(os.environ) and not _holds_secret(settings):
        show()


def _holds_secret(settings: Settings) -> bool:
    fields = {*ACCESS_FIELDS, "auth_pepper"} - _NO_SECRETS
    return "@" in settings.nats_url or any(getattr(settings, field) is not None for field in fields)


def _wiped_variable(entry: bytes) -> bytes:
    name, found, value = entry.partition(b"=")
    if found and is_secret(name.decode(errors="surrogateescape")):
        return name + found + bytes(len(value))
    return _masked(entry) if name == b"PYOCO_NATS_URL" else entry


def _masked(text: bytes) -> bytes:
    """Hide users and passwords in addresses; what is left has the same length."""
    return _USER_IN_URL.sub(lambda found: b"*" * len(found[0]), text)


def _change_block(field: int, change: Callable[[bytes], bytes]) -> None:
    """Change entries of the environment, or of the arguments, that this process was started with."""
    for begin, entry in _entries(field):
        if (changed := change(entry)) != entry:
            ctypes.memmove(begin, changed, len(entry))


def _entries(field: int) -> Iterator[tuple[int, bytes]]:
    """Yield the address and the text of each entry of a block."""
    words = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    begin, end = int(words[field]), int(words[field + 1])
    if not 0 < begin < end:
        return  # the kernel does not tell
    at = begin
    for entry in ctypes.string_at(begin, end - begin).split(b"\0"):
        if entry:
            yield at, entry
        at += len(entry) + 1


def _set_dumpable(value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)
