"""How full this machine's own disks are."""

import shutil
from pathlib import Path

from pyoco_server.model.findings.finding import Finding, FindingCode, how_full


def examine_disks(*places: Path | None) -> list[Finding]:
    """Give a finding for each disk that is nearly full.

    Args:
        places: Directories on them, which need not exist yet.
    """
    findings, seen = [], set()
    for place in filter(None, places):
        there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        if (disk := there.stat().st_dev) not in seen:
            seen.add(disk)
            usage = shutil.disk_usage(there)
            findings += how_full(FindingCode.DISK_FULL, usage.total - usage.free, usage.total, path=str(there))
    return findings
