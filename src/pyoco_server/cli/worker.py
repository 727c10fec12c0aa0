"""``pyoco-worker``: takes runs from the queue and runs them on this machine."""

import asyncio
import os
import signal
import sys
from typing import Any

import click
import structlog
import uvloop

from pyoco_server import __version__
from pyoco_server.cli.nats_option import nats_url_option
from pyoco_server.cli.output import run_command
from pyoco_server.model.tags import parse_tags
from pyoco_server.process import descriptors
from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import KEYS_FIELDS, Settings, unknown_variables
from pyoco_server.settings.secrecy import hide, keep_secrets
from pyoco_server.worker.resolver_spec import check_spec
from pyoco_server.worker.worker import DEFAULT_DRAIN_SEC, DEFAULT_POLL_SEC, DEFAULT_RUNS_PER_CHILD, Worker

log = structlog.get_logger(__name__)

_FAILED = os.EX_SOFTWARE


@click.command(epilog="Example: pyoco-worker --tags cpu,default --worker-id cpu-1")
@click.version_option(__version__)
@nats_url_option
@click.option("--tags", default="default", show_default=True, help="Tags to serve, comma separated: any one matches.")
@click.option("--worker-id", default="worker", show_default=True, help="This worker's name; one process each.")
@click.option("--flow-resolver", help="module:function or path/file.py:function that gives flows by name.")
@click.option(
    "--wheel-sync/--no-wheel-sync",
    default=None,
    help="Use the wheels uploaded for these tags  [env: PYOCO_WHEEL_SYNC_ENABLED; default: off]",
)
@click.option(
    "--wheel-sync-dir",
    help="Where wheels and environments are kept  [env: PYOCO_WHEEL_SYNC_DIR; default: .pyoco/wheels]",
)
@click.option(
    "--wheel-sync-interval-sec",
    type=float,
    help="Seconds between two looks at the registry; a change is also told at once"
    "  [env: PYOCO_WHEEL_SYNC_INTERVAL_SEC; default: 10]",
)
@click.option(
    "--wheel-install-timeout-sec",
    type=float,
    help="Seconds that an installation may take  [env: PYOCO_WHEEL_INSTALL_TIMEOUT_SEC; default: 180]",
)
@click.option(
    "--wheel-install-deps/--no-wheel-install-deps",
    default=None,
    help="Fetch what wheels need from an index  [env: PYOCO_WHEEL_INSTALL_DEPS; default: off]",
)
@click.option(
    "--poll-timeout",
    type=click.FloatRange(0.1, 60),
    default=DEFAULT_POLL_SEC,
    show_default=True,
    help="Seconds that one request for a job stays open.",
)
@click.option("--run-once", is_flag=True, help="Run at most one job, then stop.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=1, show_default=True, help="Runs at a time.")
@click.option(
    "--isolation",
    type=click.Choice(["process", "shared"]),
    help="process: a fresh process for each run; shared: one for many runs of the same tenant, flow and wheels"
    "  [env: PYOCO_ISOLATION; default: process]",
)
@click.option(
    "--preload",
    help="Installed modules to import once for all runs, comma separated: torch,pandas  [env: PYOCO_PRELOAD]",
)
@click.option("--run-as", help="User as whom runs' processes run  [env: PYOCO_RUN_AS; default: the worker's own]")
@click.option(
    "--max-runs-per-child",
    type=click.IntRange(1),
    default=DEFAULT_RUNS_PER_CHILD,
    show_default=True,
    help="Runs after which a process is replaced, with --isolation shared.",
)
@click.option(
    "--drain-timeout-sec",
    type=click.FloatRange(0),
    default=DEFAULT_DRAIN_SEC,
    show_default=True,
    help="Seconds that running runs get to finish after Ctrl-C or SIGTERM; a second one ends them at once.",
)
def command(**options: Any) -> None:
    """Take runs from the queue and run them on this machine."""
    settings = Settings.from_env(
        nats_url=options["nats_url"],
        wheel_sync_enabled=options["wheel_sync"],
        wheel_sync_dir=options["wheel_sync_dir"],
        wheel_sync_interval_sec=options["wheel_sync_interval_sec"],
        wheel_install_timeout_sec=options["wheel_install_timeout_sec"],
        wheel_install_deps=options["wheel_install_deps"],
        isolation=options["isolation"],
        preload=options["preload"],
        run_as=options["run_as"],
    )
    keep_secrets(settings)
    # The gateway's alone: keys are not a worker's business.
    settings = settings.model_copy(update=dict.fromkeys(KEYS_FIELDS))
    configure_logging(service="pyoco-server:worker", settings=settings)
    for line in unknown_variables():
        log.warning(line)
    descriptors.raise_limit()
    if options["flow_resolver"]:
        check_spec(options["flow_resolver"])
    worker_options = {
        "worker_id": options["worker_id"],
        "tags": parse_tags(options["tags"]),
        "resolver": options["flow_resolver"],
        "slots": options["concurrency"],
        "max_runs_per_child": options["max_runs_per_child"],
        "poll_sec": options["poll_timeout"],
    }
    structlog.contextvars.bind_contextvars(worker_id=options["worker_id"])
    uvloop.install()
    asyncio.run(_serve(settings, worker_options, options))


async def _serve(settings: Settings, worker_options: dict[str, Any], options: dict[str, Any]) -> None:
    worker = Worker(settings, **worker_options)
    loop = asyncio.get_running_loop()
    reasons: list[str] = []

    def ask_to_stop(sig: signal.Signals) -> None:
        reasons.append(sig.name)
        if worker.stopping.is_set():
            log.info("handing running runs back at once", signal=sig.name)
            worker.hurrying.set()
        else:
            log.info("stopping", signal=sig.name)
            worker.stopping.set()

    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, ask_to_stop, sig)
    try:
        await worker.start()
        if options["run_once"]:
            await worker.run_once(options["poll_timeout"], options["drain_timeout_sec"])
        else:
            await worker.run(options["drain_timeout_sec"])
    finally:
        await worker.close(reasons[0] if reasons else "finished")


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is the answer."""
    if argv is None:
        hide()
    try:
        return run_command(command, argv, "pyoco-worker")
    except Exception:  # a bug: whoever starts workers again can tell it from settings that cannot be used
        log.exception("the worker has failed")
        return _FAILED


if __name__ == "__main__":
    sys.exit(main())
