"""Directories of wheels on the disk: whose they may be, how they are sealed against changes, and how a change is seen.

Tasks run as the worker's user, unless another one was given, so a seal cannot stop a task that means it. But whatever
it does to a sealed file moves the file's change time, which only the kernel sets.
"""

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pyoco_server.errors import InvalidSetting

PRIVATE = 0o700
SHARED = 0o755
"""Of what runs must be able to read, also where they are another user's."""
_READ, _RUN = 0o444, 0o555
_OURS = f".{sys.implementation.cache_tag}.pyc"
_CACHE = "__pycache__"
_WRONG_PLACE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}


def make_folder(path: Path, mode: int = PRIVATE) -> None:
    """Make a folder, and those above it; the mode does not depend on the umask.

    Args:
        path: The folder; one that is there gets the mode, too.
        mode: Its rights.

    Raises:
        OSError: it cannot be made, or is none.
    """
    try:
        path.mkdir(mode)
    except FileNotFoundError:
        make_folder(path.parent, SHARED)
        path.mkdir(mode, exist_ok=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        if stat.S_IMODE(path.stat().st_mode) == mode:
            return
    path.chmod(mode)


def check_owner(directory: Path) -> None:
    """Check that nobody else can change what a directory holds, or put another one in its place.

    Args:
        directory: It need not be there.

    Raises:
        InvalidSetting: somebody can; tells what to do.
    """
    place = Path(os.path.realpath(directory))
    for path in (place, *place.parents):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidSetting(f"--wheel-sync-dir {directory} cannot be used: {path}: {error.strerror}") from error
        if path == place and not stat.S_ISDIR(found.st_mode):
            raise InvalidSetting(f"--wheel-sync-dir {directory} is no directory")
        whose = _flaw(found, is_itself=path == place)
        if whose:
            raise InvalidSetting(
                f"--wheel-sync-dir {directory} cannot be trusted: {path} {whose}, who could change the code of runs",
                hint=f"Name a directory that belongs to {_user(os.geteuid())} alone (PYOCO_WHEEL_SYNC_DIR), "
                f"or take the right away: chmod go-w {path}",
            )


def check_room(directory: Path) -> None:
    """Check that a directory can be made and written. A disk that is full, or the like, may be mended meanwhile.

    Raises:
        InvalidSetting: it cannot, and will not without somebody's doing.
    """
    try:
        if not directory.is_dir():
            make_folder(directory, SHARED)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        if error.errno in _WRONG_PLACE:
            raise InvalidSetting(
                f"--wheel-sync-dir {directory} cannot be written: {error.strerror}",
                hint=f"Name a directory that {_user(os.geteuid())} may write (PYOCO_WHEEL_SYNC_DIR).",
            ) from None


def _flaw(found: os.stat_result, *, is_itself: bool) -> str | None:
    trusted = {os.geteuid()} if is_itself else {os.geteuid(), 0}
    if found.st_uid not in trusted:
        return f"belongs to {_user(found.st_uid)}"
    if found.st_mode & stat.S_ISVTX and not is_itself:
        return None  # as in /tmp: nobody else removes or renames what is ours
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0 and not _is_private(found.st_gid):
        return f"can be written by the group {_group(found.st_gid)}"
    return None


def _is_private(gid: int) -> bool:
    """Whether a group is that of our user alone, as many systems make it for each user."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return f"the user {pwd.getpwuid(uid).pw_name}"
    return f"the user {uid}"


def _group(gid: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def seal(directory: Path) -> None:
    """Make everything in a directory read-only, for its owner too, and without special rights.

    Raises:
        OSError: that cannot be done.
    """
    for path, found in _entries(directory):
        if stat.S_ISLNK(found.st_mode):
            continue
        is_run = stat.S_ISDIR(found.st_mode) or bool(found.st_mode & 0o111)
        Path(path).chmod(_RUN if is_run else _READ)


def remove_tree(directory: Path) -> None:
    """Remove a directory, sealed or not, as far as that is possible."""
    with contextlib.suppress(OSError):
        directory.chmod(PRIVATE)
        for path, found in _entries(directory):
            if stat.S_ISDIR(found.st_mode):
                Path(path).chmod(PRIVATE)
    shutil.rmtree(directory, ignore_errors=True)


def fingerprint(directory: Path, *, but: str) -> str:
    """Return what changes with any change of a directory's files, their names or their rights.

    What Python itself writes beside modules for other interpreters is not counted: a task of root's may start one.

    Args:
        directory: The directory.
        but: A file in it that is not counted.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for path, found in _entries(directory):
        name = path[len(str(directory)) + 1 :]
        folder, _, last = name.rpartition("/")
        if name == but or (folder.rpartition("/")[2] == _CACHE and not last.endswith(_OURS)):
            continue
        told = [found.st_mode, found.st_uid, found.st_ino]
        if not stat.S_ISDIR(found.st_mode):
            told += [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        digest.update(f"{name}\0{told}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _entries(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Return everything in a directory, each folder before what it holds, in order of the names."""
    waiting = [str(directory)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            yield entry.path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
