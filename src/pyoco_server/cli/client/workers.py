"""``workers``, ``workers drain`` and ``metrics``."""

import time
from typing import Any

import click
from click.core import ParameterSource

from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.client.worker_tables import (
    PLUGIN_COLUMNS,
    WORKER_COLUMNS,
    plugin_rows,
    with_tenant,
    worker_row,
)
from pyoco_server.cli.output import print_json, print_table
from pyoco_server.client.errors import ApiError, CannotConnect
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.patience import Patience
from pyoco_server.errors import CommandFailed

_STATES = ["RUNNING", "IDLE", "STOPPED_GRACEFUL", "DISCONNECTED"]
_LOOK_EVERY = 0.5


@click.group(
    invoke_without_command=True,
    epilog="Example: pyoco-client workers --scope all --output table, or: pyoco-client workers drain cpu-1 --wait",
)
@click.option(
    "--scope",
    type=click.Choice(["active", "all"]),
    default="active",
    show_default=True,
    help="Those that are there, or all that are known.",
)
@click.option("--state", type=click.Choice(_STATES), help="Only this state.")
@click.option("--include-hidden", is_flag=True, help="Also those that were hidden.")
@click.option("--limit", type=click.IntRange(1, 500), help="How many at most.")
@click.option(
    "--output",
    type=click.Choice(["json", "table", "plugins"]),
    default="json",
    show_default=True,
    help="How to print; plugins: one line for each installed wheel and pyoco plug-in.",
)
@click.pass_context
def workers(context: click.Context, /, output: str, include_hidden: bool, **query: Any) -> None:
    """List workers, last seen first; or drain one."""
    if context.invoked_subcommand is not None:
        _refuse_list_options(context)
        return
    client = context.find_object(PyocoHttpClient)
    assert client is not None  # noqa: S101 - the command itself made it
    items = client.get_workers(include_hidden=include_hidden or None, **query)
    if output == "json":
        print_json(items)
    elif output == "table":
        print_table(WORKER_COLUMNS, [worker_row(item) for item in items])
    else:
        rows = plugin_rows(items)
        print_table(with_tenant(PLUGIN_COLUMNS, rows), rows)


def _refuse_list_options(context: click.Context) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)} cannot be used with {context.invoked_subcommand!r}", context)


@workers.command(epilog="Example: pyoco-client workers drain cpu-1 --reason 'new kernel' --wait")
@click.argument("worker_id", metavar="WORKER_ID")
@click.option("--reason", help="Kept with the worker, and told to those whose runs wait for it.")
@click.option("--wait", is_flag=True, help="Wait until it has stopped, and show it then.")
@click.option(
    "--timeout-sec", type=click.IntRange(1), default=60, show_default=True, help="With --wait: at most so long."
)
@pass_client
def drain(client: PyocoHttpClient, /, worker_id: str, reason: str | None, wait: bool, timeout_sec: int) -> None:
    """Let a worker take no more runs, finish those that it has, and stop."""
    asked = client.drain_worker(worker_id, reason=reason)
    print_json(_wait_until_stopped(client, asked, timeout_sec) if wait else asked)


def _wait_until_stopped(client: PyocoHttpClient, asked: dict[str, Any], timeout_sec: int) -> dict[str, Any]:
    """Wait until the process that was asked is gone.

    Raises:
        CommandFailed: it is disconnected.
        TimeoutError: it is still there.
    """
    worker_id = asked["worker_id"]
    deadline = time.monotonic() + timeout_sec
    patience = Patience(deadline=deadline)
    while time.monotonic() < deadline:
        try:
            items = client.get_workers(scope="all", include_hidden=True, worker_id=worker_id)
        except (CannotConnect, ApiError) as error:
            patience.bear(error)
            continue
        patience.renew()
        found = items[0] if items else asked  # a second gateway may not know it yet
        if found["instance_id"] == asked["instance_id"]:
            if found["state"] == "STOPPED_GRACEFUL":
                return found
            if found["state"] == "DISCONNECTED":
                raise CommandFailed(
                    f"worker {worker_id} is DISCONNECTED: it was lost while it drained",
                    hint="Its runs start elsewhere when NATS delivers them again: pyoco-client why RUN_ID",
                )
        elif (found["started_at"] or 0) > (asked["started_at"] or 0):  # it stopped, and another process has its name
            return {**asked, "state": "STOPPED_GRACEFUL", "draining": False, "current_run_ids": []}
        time.sleep(min(_LOOK_EVERY, max(0.0, deadline - time.monotonic())))
    raise TimeoutError(f"worker {worker_id} has not stopped within {timeout_sec} s; it goes on draining")


@click.command(epilog="Example: pyoco-client metrics | grep pyoco_runs_total")
@pass_client
def metrics(client: PyocoHttpClient, /) -> None:
    """Show the server's metrics, as Prometheus reads them."""
    click.echo(client.get_metrics(), nl=False)


COMMANDS = [workers, metrics]
