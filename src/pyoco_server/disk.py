"""How full this machine's own disk is."""

import shutil
from pathlib import Path

from pyoco_server.model.findings import Finding, FindingCode, how_full


def examine_disk(path: Path) -> list[Finding]:
    """Give a finding if the disk of a directory, which need not exist yet, is nearly full."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    return how_full(FindingCode.DISK_FULL, usage.total - usage.free, usage.total, path=str(path))
