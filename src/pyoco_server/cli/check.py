"""``pyoco-server check``: is what a gateway needs there, and well? For probes, and before a start."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import click
import httpx2

from pyoco_server import __version__
from pyoco_server.cli.findings import lang_option, output_option, print_findings
from pyoco_server.cli.language import terminal_language
from pyoco_server.cli.nats_option import nats_url_option
from pyoco_server.client.abilities import description
from pyoco_server.client.diagnosis import odd_answer, proxy_fails
from pyoco_server.client.requests import client_options
from pyoco_server.errors import InvalidInput, InvalidSetting, StoreRefused, StoreUnavailable
from pyoco_server.model.findings.finding import Finding, FindingCode, error, info, warning, worst_first
from pyoco_server.model.findings.texts import described
from pyoco_server.model.text.languages import Language
from pyoco_server.model.text.sentences import Span
from pyoco_server.process.disk import examine_disks
from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import Settings, unknown_variables
from pyoco_server.settings.existing import read_otherwise as otherwise
from pyoco_server.settings.nats import NatsTarget
from pyoco_server.store.examination import examine, examine_keys
from pyoco_server.store.mending import mend_direct_reads
from pyoco_server.store.moving.look import look_before_moving
from pyoco_server.store.nats.connection import Connection, connected

_JUDGING_SEC = 60.0
"""Beside the time in which a store is read: that in which what was read is looked through."""

_NOT_FOUND = 404


@click.command(epilog="Example: pyoco-server check --url http://127.0.0.1:8000")
@nats_url_option
@click.option("--url", help="Ask the gateway there too whether it is ready.")
@click.option("--moving", is_flag=True, help="Say what a start would do with a store of the existing system.")
@click.option(
    "--timeout-sec",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="For NATS, and for the gateway.",
)
@click.option(
    "--mend",
    is_flag=True,
    help="First turn direct reads on for streams that another program made without (allow_direct), and change nothing "
    "else of them. The user of NATS must have the right to change streams.",
)
@output_option
@lang_option
def check(
    nats_url: str | None,
    url: str | None,
    moving: bool,
    timeout_sec: float,
    mend: bool,
    output: str,
    lang: Language | None,
) -> int:
    """Look at the settings, NATS, its streams and the disk; exit code 0: well, 1: something is wrong.

    Nothing is changed but by --mend; also not by --moving, which reads what the streams hold (docs/how-to/moving.md).
    """
    if mend and moving:
        raise click.UsageError("--moving changes nothing, and --mend does: leave one of the two out")
    # What it finds is its answer; log lines would stand between. The settings may be unusable.
    configure_logging(service="pyoco-server", settings=Settings.model_construct(log_level="CRITICAL"), stderr=True)
    language = lang or terminal_language()
    findings, about = asyncio.run(_look(nats_url, url, timeout_sec, moving=moving, mend=mend))
    shown = [described(finding, language, time.time()) for finding in worst_first(findings)]
    head = f"pyoco-server {__version__}" + (f" · NATS {about['nats_server']}" if about["nats_server"] else "")
    return print_findings(shown, output=output, language=language, about=about, head=head)


COMMANDS = [check]


async def _look(
    nats_url: str | None, url: str | None, timeout: float, *, moving: bool, mend: bool
) -> tuple[list[Finding], dict[str, Any]]:
    about: dict[str, Any] = {"pyoco_server": __version__, "nats_server": None, "nats_url": None, "url": url}
    if moving:
        about["store"] = None
    asking = asyncio.create_task(_gateway(url, timeout)) if url else None
    try:
        settings = Settings.from_env(nats_url=nats_url)
        settings.check_files()
        settings = settings.with_local_signer()
    except InvalidSetting as refused:
        findings = [error(FindingCode.SETTINGS_INVALID, reason=refused.message, fix=refused.hint or None)]
    except StoreRefused as refused:
        findings = [error(FindingCode.NATS_REFUSED, reason=refused.message, fix=refused.hint)]
    else:
        findings = [warning(FindingCode.SETTING_UNKNOWN, reason=line) for line in unknown_variables()]
        if moving:
            findings += [
                warning(FindingCode.SETTING_READ_OTHERWISE, name=name, reason=why) for name, why in otherwise()
            ]
        findings += [
            *examine_disks(settings.state_dir, settings.nats_store_dir),
            *await (_store(settings, timeout, about) if moving else _nats(settings, timeout, about, mend=mend)),
        ]
    return [*findings, *(await asking if asking else [])], about


async def _nats(settings: Settings, timeout: float, about: dict[str, Any], *, mend: bool) -> list[Finding]:
    """Look at NATS; what is learned of it beside the findings goes into ``about``."""
    about["nats_url"] = settings.nats_target().shown_url

    async def look(connection: Connection) -> list[Finding]:
        about["nats_server"] = connection.server_version
        return await examine(connection)

    mended = await _mend(settings, timeout) if mend else []

    parts = [_reach(settings, settings.nats_target(), timeout, look)]
    if settings.keys_apart and settings.http_auth_mode == "api_key":
        parts.append(_reach(settings, settings.keys_target(), timeout, examine_keys))
    return [*mended, *(finding for part in await asyncio.gather(*parts) for finding in part)]


async def _mend(settings: Settings, timeout: float) -> list[Finding]:
    mending = mend_direct_reads(settings, "pyoco-server:check", timeout)
    try:
        mended = await asyncio.wait_for(mending, timeout)
    except (StoreRefused, StoreUnavailable, asyncio.TimeoutError):
        return []  # the look that follows comes to the same, and says so
    return [info(FindingCode.READS_MENDED, streams=mended)] if mended else []


async def _store(settings: Settings, timeout: float, about: dict[str, Any]) -> list[Finding]:
    """Look at what NATS holds, as somebody who moves in; whose store it is goes into ``about``."""
    about["nats_url"] = settings.nats_target().shown_url
    enough = time.monotonic() + timeout

    async def look(connection: Connection) -> list[Finding]:
        about["nats_server"] = connection.server_version
        looked = await look_before_moving(connection, deadline=enough)
        about["store"] = looked.store
        return looked.findings

    return await _reach(settings, settings.nats_target(), timeout, look, beside=_JUDGING_SEC)


async def _reach(
    settings: Settings,
    target: NatsTarget,
    timeout: float,
    look: Callable[[Connection], Awaitable[list[Finding]]],
    *,
    beside: float = 0.0,
) -> list[Finding]:
    url, deadline, reached = target.shown_url, time.monotonic() + timeout + beside, False
    try:
        async with connected(settings, "pyoco-server:check", timeout, target=target) as connection:
            reached = True
            return await asyncio.wait_for(look(connection), max(0.1, deadline - time.monotonic()))
    except StoreRefused as refused:
        return [error(FindingCode.NATS_REFUSED, reason=refused.message, fix=refused.hint)]
    except (StoreUnavailable, asyncio.TimeoutError) as away:
        if not reached:
            return [error(FindingCode.NATS_UNREACHABLE, url=url)]
        reason = away.message if isinstance(away, StoreUnavailable) else None
        return [error(FindingCode.NATS_SLOW, url=url, waited=Span(timeout), reason=reason)]


async def _gateway(url: str, timeout: float) -> list[Finding]:
    proxy = document = None
    try:
        options, proxy = client_options(url, None, "", timeout)
        async with httpx2.AsyncClient(**options) as http:
            answer = await asyncio.wait_for(http.get("/ready"), timeout)
            told = answer.json()
            if answer.status_code == _NOT_FOUND:
                document = description(await asyncio.wait_for(http.get("/openapi.json"), timeout))
    except InvalidInput as unusable:  # the address, or the proxy or the certificates that the environment names
        return [error(FindingCode.SERVER_UNREACHABLE, url=url, reason=unusable.message)]
    except (httpx2.HTTPError, asyncio.TimeoutError) as failed:
        reason = str(failed) or "it does not answer"
        if proxy:
            return [proxy_fails(url, proxy, reason)]
        return [error(FindingCode.SERVER_UNREACHABLE, url=url, reason=reason)]
    except ValueError:
        return [odd_answer(url, proxy, f"HTTP {answer.status_code}, and no JSON")]
    problems = _problems(told)
    if problems is None:
        odd = odd_answer(url, proxy, f"HTTP {answer.status_code}, and no word of /ready")
        return [error(FindingCode.SERVER_OLD, url=url) if document is not None else odd]
    return [error(FindingCode.SERVER_NOT_READY, url=url, reason=problem) for problem in problems]


def _problems(ready: Any) -> list[str] | None:
    """Give the problems that ``/ready`` tells; ``None`` if it is not the answer of a server of ours."""
    if not isinstance(ready, dict) or ready.get("status") not in ("ready", "not ready"):
        return None
    problems = ready.get("problems")
    return [str(problem) for problem in problems] if isinstance(problems, list) else None
