"""Where keys guard less than they seem to: what ``doctor`` says of the ways around them."""

import time
from collections.abc import Iterable

from pyoco_server.gateway.gateway import Gateway
from pyoco_server.model.findings.finding import Finding, FindingCode, error, info, warning
from pyoco_server.model.parts import LATELY_SEC, Parts
from pyoco_server.model.text.sentences import Moment, Span
from pyoco_server.process.supervision import Supervised

_MOST = 20


def ways_around_keys(here: Gateway) -> list[Finding]:
    """Return what weakens API keys, where they are on."""
    settings, connection = here.settings, here.connection
    if settings.http_auth_mode != "api_key":
        return []
    findings, guarded = [], True
    if connection.is_up and not connection.asks_who_we_are:
        guarded = False
        findings.append(warning(FindingCode.NATS_LETS_ALL_IN, url=connection.shown_url))
    elif not here.keys.are_apart:
        guarded = False
        findings.append(warning(FindingCode.KEYS_NOT_APART))
    if settings.auth_pepper is None:
        make = info if guarded else warning
        findings.append(make(FindingCode.KEYS_WITHOUT_PEPPER, bucket=settings.auth_kv_bucket))
    return findings


def failing_tasks(tasks: Iterable[Supervised]) -> list[Finding]:
    """Return a finding for each background task that fails."""
    return [
        (error if task.vital else warning)(
            FindingCode.TASK_FAILING, task=task.name, failures=task.failures_in_a_row, reason=task.reason,
            lasts=Span(max(0.0, time.time() - (task.failing_since or time.time()))),
        )
        for task in tasks
    ]  # fmt: skip


def keys_refused(here: Gateway) -> list[Finding]:
    """Return which keys of the existing system cannot be used, where keys are on."""
    if here.settings.http_auth_mode != "api_key":
        return []
    refused, unusable = here.auth.existing.refused, here.auth.unusable()
    return [
        *([warning(FindingCode.EXISTING_KEYS_REFUSED, keys=refused[:_MOST])] if refused else []),
        *([warning(FindingCode.EXISTING_KEYS_UNUSABLE, keys=unusable[:_MOST])] if unusable else []),
    ]


def dead_parts(parts: Parts) -> list[Finding]:
    """Return which parts of the system have died, and are started again."""
    now, findings = time.time(), []
    for part in parts.known:
        if part.last_death is None or part.since is None:
            continue
        make = error if part.pid is None else warning if now - part.last_death < LATELY_SEC else info
        findings.append(
            make(
                FindingCode.PART_DIED, part=part.name, deaths=part.deaths, since=Moment(part.since),
                exit=part.last_exit, next_start_at=Moment(part.next_start) if part.next_start else None,
            )
        )  # fmt: skip
    return findings
