"""What ``check`` and ``doctor`` find: a code of a closed list, how bad it is, and the facts that its sentence names."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How bad it is."""

    ERROR = "error"
    """Something does not work, or data is in danger."""
    WARNING = "warning"
    """It works, and somebody should look."""
    INFO = "info"
    """Good to know."""


class FindingCode(str, Enum):
    """What was found."""

    # The settings, and the way to NATS.
    SETTINGS_INVALID = "settings_invalid"
    SETTING_UNKNOWN = "setting_unknown"
    NATS_UNREACHABLE = "nats_unreachable"
    NATS_REFUSED = "nats_refused"
    NATS_SLOW = "nats_slow"
    NATS_OLD = "nats_old"
    JETSTREAM_OFF = "jetstream_off"
    # What is kept there.
    STREAMS_NOT_MADE = "streams_not_made"
    STREAM_MISSING = "stream_missing"
    STREAM_DIFFERS = "stream_differs"
    RESTORE_NOT_ENDED = "restore_not_ended"
    STORAGE_FULL = "storage_full"
    DISK_FULL = "disk_full"
    # The gateway.
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_ODD = "server_odd"
    SERVER_NOT_READY = "server_not_ready"


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        code: What it is.
        severity: How bad it is.
        values: What its texts may name. ``None`` is not known.
    """

    code: FindingCode
    severity: Severity
    values: dict[str, Any] = field(default_factory=dict)


def error(code: FindingCode, **values: Any) -> Finding:
    """Make a finding that is an error."""
    return Finding(code, Severity.ERROR, values)


def warning(code: FindingCode, **values: Any) -> Finding:
    """Make a finding that is a warning."""
    return Finding(code, Severity.WARNING, values)


def info(code: FindingCode, **values: Any) -> Finding:
    """Make a finding that is good to know."""
    return Finding(code, Severity.INFO, values)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sort findings by severity; within one they keep their order."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))
