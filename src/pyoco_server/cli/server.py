"""``pyoco-server``: the gateway, alone or with an embedded NATS and a worker; and the demo."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop

from pyoco_server import __version__
from pyoco_server.cli import backup, check
from pyoco_server.cli.nats_option import nats_url_option
from pyoco_server.cli.output import run_command
from pyoco_server.errors import CommandFailed
from pyoco_server.model.tags import check_worker_id, parse_tags
from pyoco_server.process import descriptors
from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import Settings, unknown_variables
from pyoco_server.settings.secrecy import hide, keep_secrets
from pyoco_server.worker.resolver_spec import check_spec

log = structlog.get_logger(__name__)


@click.group(epilog="'up' may be left out: pyoco-server --port 8001 is pyoco-server up --port 8001.")
@click.version_option(__version__)
def command() -> None:
    """Run pyoco workflows on a handful of machines."""


@command.command(epilog="Example: pyoco-server up --with-nats --with-worker --worker-tags cpu")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--insecure", is_flag=True, help="Let other machines in though nobody asks who they are.")
@click.option("--log-level", help="DEBUG, INFO, WARNING, ERROR  [env: PYOCO_LOG_LEVEL; default: INFO]")
@nats_url_option
@click.option("--root-path", help="Path under which a proxy serves this, such as /pyoco  [env: PYOCO_ROOT_PATH]")
@click.option("--dashboard-lang", type=click.Choice(["auto", "ja", "en"]), help="Language of the page.")
@click.option("--with-nats-bootstrap", "--with-nats", "with_nats", is_flag=True, help="Start an own nats-server too.")
@click.option(
    "--nats-listen-host",
    default="127.0.0.1",
    show_default=True,
    help="Its address; on another than this machine's own it lets everybody in.",
)
@click.option("--nats-client-port", type=click.IntRange(-1, 65535), default=4222, show_default=True)
@click.option("--nats-http-port", type=click.IntRange(-1, 65535), default=8222, show_default=True)
@click.option("--nats-store-dir", type=click.Path(path_type=Path), help="Its data  [default: .pyoco/nats]")
@click.option(
    "--nats-sync",
    type=click.Choice(["always", "interval"]),
    help="What its acknowledgement means: on the disk, or on its way there for two minutes at most"
    "  [env: PYOCO_NATS_SYNC; default: always]",
)
@click.option("--with-worker", is_flag=True, help="Start a worker too.")
@click.option("--worker-id", default="worker", show_default=True)
@click.option("--worker-tags", default="default", show_default=True)
@click.option("--worker-flow-resolver", help="module:function or path/file.py:function that gives flows by name.")
@click.option("--worker-run-as", help="User as whom runs' processes run  [env: PYOCO_RUN_AS; default: this one]")
@click.option("--worker-poll-timeout", type=click.FloatRange(0.1, 60), default=1.0, show_default=True)
def up(**options: Any) -> None:
    """Start the HTTP gateway."""
    from pyoco_server.embedded.system import System  # noqa: PLC0415 - other commands load no web server

    settings = Settings.from_env(
        nats_url=options["nats_url"],
        nats_sync=options["nats_sync"],
        log_level=options["log_level"],
        root_path=options["root_path"],
        dashboard_lang=options["dashboard_lang"],
    )
    keep_secrets(settings)
    configure_logging(service="pyoco-server:http", settings=settings)
    for line in unknown_variables():
        log.warning(line)
    descriptors.raise_limit()
    if options["with_nats"] and options["nats_url"]:
        raise CommandFailed(
            "--nats-url names a NATS that runs already, --with-nats starts another",
            hint="Leave one of the two out.",
        )
    if options["nats_sync"] and not options["with_nats"]:
        raise CommandFailed(
            "--nats-sync is for the nats-server that --with-nats starts; one that runs already decides for itself",
            hint="Set sync_interval in the jetstream part of its configuration.",
        )
    if options["with_nats"] and settings.nats_access:
        # Better no server than one that looks guarded and is not.
        raise CommandFailed(
            f"{', '.join(settings.nats_access)}: the nats-server that --with-nats starts knows no such credentials",
            hint="Leave them out, or start a nats-server of your own with them and name it by --nats-url.",
        )
    worker = None
    if options["with_worker"]:
        if options["worker_flow_resolver"]:
            check_spec(options["worker_flow_resolver"])
        worker = [
            "--worker-id", check_worker_id(options["worker_id"]),
            "--tags", ",".join(parse_tags(options["worker_tags"])),
            "--poll-timeout", str(options["worker_poll_timeout"]),
            *(["--run-as", options["worker_run_as"]] if options["worker_run_as"] else []),
            *(["--flow-resolver", options["worker_flow_resolver"]] if options["worker_flow_resolver"] else []),
        ]  # fmt: skip
    system = System(
        settings,
        host=options["host"],
        port=options["port"],
        insecure=options["insecure"],
        nats_store=(options["nats_store_dir"] or settings.own_nats_store) if options["with_nats"] else None,
        nats_listen=(options["nats_listen_host"], options["nats_client_port"], options["nats_http_port"]),
        workers=[worker] if worker else [],
    )
    uvloop.install()
    asyncio.run(system.serve())


@command.command()
@click.option("--exit", "exit_after", is_flag=True, help="Stop when the runs have ended.")
@click.option("--lang", type=click.Choice(["en", "ja"]), help="Language of what is printed.")
def demo(exit_after: bool, lang: str | None) -> None:
    """Start everything on free ports and run the tutorial's flow on a cpu and a gpu worker."""
    from pyoco_server.embedded.demo import run_demo  # noqa: PLC0415

    uvloop.install()
    if not asyncio.run(run_demo(exit_after=exit_after, lang=lang)):
        raise CommandFailed("a run of the demo did not end as it should; see the table above")


for part in (*backup.COMMANDS, *check.COMMANDS):
    command.add_command(part)


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is the answer."""
    if argv is None:
        hide()
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
        args.insert(0, "up")
    return run_command(command, args, "pyoco-server")


if __name__ == "__main__":
    sys.exit(main())
