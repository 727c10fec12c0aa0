"""What ``check`` and ``doctor`` find: a code of a closed list, how bad it is, and the facts that its sentence names."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pyoco_server.model.text.sentences import Offset, Share, Size

_CROWDED, _FULL = 0.8, 0.95
_APART_SEC, _FAR_APART_SEC = 2.0, 10.0
"""Silence of a worker is counted in seconds, by its clock and by ours."""


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
    STREAM_NOT_SEEN = "stream_not_seen"
    READS_SLOW = "reads_slow"
    READS_FAIL = "reads_fail"
    READS_MENDED = "reads_mended"
    RESTORE_NOT_ENDED = "restore_not_ended"
    RUNS_WITHOUT_EXPIRY = "runs_without_expiry"
    SUBMISSIONS_REFUSED = "submissions_refused"
    STORAGE_FULL = "storage_full"
    DISK_FULL = "disk_full"
    # The gateway, and the way to it.
    SERVER_UNREACHABLE = "server_unreachable"
    PROXY_FAILS = "proxy_fails"
    SERVER_ODD = "server_odd"
    SERVER_NOT_READY = "server_not_ready"
    SERVER_FAILS = "server_fails"
    SERVER_OLD = "server_old"
    KEY_MISSING = "key_missing"
    KEY_INVALID = "key_invalid"
    NO_AUTHENTICATION = "no_authentication"
    CONNECTIONS_SHORT = "connections_short"
    NATS_LETS_ALL_IN = "nats_lets_all_in"
    KEYS_NOT_APART = "keys_not_apart"
    KEYS_WITHOUT_PEPPER = "keys_without_pepper"
    EXISTING_KEYS_REFUSED = "existing_keys_refused"
    EXISTING_KEYS_UNUSABLE = "existing_keys_unusable"
    PART_DIED = "part_died"
    TASK_FAILING = "task_failing"
    INDEX_BUILDING = "index_building"
    INDEX_BEHIND = "index_behind"
    # Runs, and who runs them.
    TAG_WITHOUT_WORKER = "tag_without_worker"
    RUNS_WAIT_LONG = "runs_wait_long"
    RECORDS_UNREADABLE = "records_unreadable"
    DEAD_LETTERS = "dead_letters"
    WORKER_DISCONNECTED = "worker_disconnected"
    WORKER_UNFIT = "worker_unfit"
    WORKER_WHEELS = "worker_wheels"
    TASKS_UNCONFINED = "tasks_unconfined"
    TASKS_HALF_CONFINED = "tasks_half_confined"
    TASKS_AS_ROOT = "tasks_as_root"
    TASKS_AS_WORKER = "tasks_as_worker"
    WORKERS_OF_EXISTING_SYSTEM = "workers_of_existing_system"
    # What the existing system left in a store, and what a start would do with it.
    STORE_EMPTY = "store_empty"
    STORE_OURS = "store_ours"
    STORE_EXISTING = "store_existing"
    STORE_PARTIAL = "store_partial"
    STREAMS_TO_MAKE = "streams_to_make"
    DIRECT_READS_OFF = "direct_reads_off"
    RIGHT_MISSING = "right_missing"
    PAYLOAD_SMALL = "payload_small"
    PARTS_LEFT_OUT = "parts_left_out"
    RUNS_HELD = "runs_held"
    RUNS_UNDER_WAY = "runs_under_way"
    APPROVALS_WAIT = "approvals_wait"
    JOBS_QUEUED = "jobs_queued"
    JOBS_UNFIT = "jobs_unfit"
    JOBS_BY_NAME = "jobs_by_name"
    FLOWS_NOT_PARSED = "flows_not_parsed"
    TAGS_UNFIT = "tags_unfit"
    EXISTING_KEYS = "existing_keys"
    KEYS_ELSEWHERE = "keys_elsewhere"
    WHEELS_HELD = "wheels_held"
    WHEELS_UNFIT = "wheels_unfit"
    WHEELS_ELSEWHERE = "wheels_elsewhere"
    WHEEL_ROOM = "wheel_room"
    KEPT_AS_IT_IS = "kept_as_it_is"
    SETTING_READ_OTHERWISE = "setting_read_otherwise"
    LOOKED_AT_IN_PART = "looked_at_in_part"
    # Of all of them.
    VERSION_DIFFERS = "version_differs"
    CLOCK_APART = "clock_apart"
    ACKNOWLEDGED_MEANS = "acknowledged_means"
    DURABILITY_UNKNOWN = "durability_unknown"
    STREAM_LESS_SAFE = "stream_less_safe"


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


def how_full(code: FindingCode, used: int, limit: int, **values: Any) -> list[Finding]:
    """Give a finding where something is nearly full.

    Args:
        code: Of the finding.
        used: Bytes.
        limit: Bytes; 0 or less for no limit.
        values: What else its texts name.
    """
    share = used / limit if limit > 0 else 0.0
    if share < _CROWDED:
        return []
    make = error if share >= _FULL else warning
    return [make(code, share=Share(share), used=Size(used), limit=Size(limit), free=Size(limit - used), **values)]


def apart(who: str, offset: float, *, doubt: float = 0.0) -> list[Finding]:
    """Give a finding where a clock is not NATS's, or not the server's.

    Args:
        who: Whose clock.
        offset: By how many seconds it is ahead.
        doubt: How many seconds of that may be the way of the messages.
    """
    if abs(offset) - doubt < _APART_SEC:
        return []
    make = error if abs(offset) - doubt >= _FAR_APART_SEC else warning
    return [make(FindingCode.CLOCK_APART, who=who, offset=Offset(offset))]


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sort findings by severity; within one they keep their order."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))
