"""User code is imported as it lies on the disk, whatever was imported before.

Python takes a module's compiled form when the source has the same size and the same time, to the second, as when it was
compiled. A file that is edited twice within a second can so be run in its older form, by every later run. So what was
written a moment ago is compiled, but its compiled form is not kept.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_YOUNG_SEC = 2.0
"""Age from which on a change of a file also changes its time: file systems keep whole seconds at worst."""
_imported: dict[str, tuple[float, int]] = {}
"""Time and size of each source file that this process has imported, as they were then."""


class FreshLoader(importlib.machinery.SourceFileLoader):
    """Imports a source file, and keeps its compiled form only where no later edit can be mistaken for it."""

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        """Return the file's time and size, and note them."""
        stats = super().path_stats(path)
        _imported[os.fspath(path)] = (stats["mtime"], stats["size"])
        return stats

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write a file beside the source: its compiled form."""
        try:
            source = Path(importlib.util.source_from_cache(path))
            young = time.time() - source.stat().st_mtime < _YOUNG_SEC
        except (OSError, ValueError):
            return
        if not young:
            super().set_data(path, data, _mode=_mode)


def import_fresh() -> None:
    """Import every source file so from now on."""
    details = (
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (FreshLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )
    sys.path_hooks.insert(0, importlib.machinery.FileFinder.path_hook(*details))
    sys.path_importer_cache.clear()


def forget_directories() -> None:
    """Look anew into every directory that may have changed since a template looked; what is installed does not."""
    for place in list(sys.path_importer_cache):
        if not place.startswith((sys.prefix, sys.base_prefix)):
            del sys.path_importer_cache[place]


def changed_since_import() -> bool:
    """Whether a file that this process has imported is not what it was; what is installed does not change."""
    fixed = (f"{sys.prefix}/", f"{sys.base_prefix}/")
    return any(_stats(file) != stats for file, stats in _imported.items() if not file.startswith(fixed))


def _stats(file: str) -> tuple[float, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - may be called for many files before each run
    except OSError:
        return None
    return found.st_mtime, found.st_size
