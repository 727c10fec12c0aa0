"""``workers`` and ``metrics``."""

from typing import Any

import click

from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.output import WORKER_COLUMNS, print_json, print_table
from pyoco_server.client.http import PyocoHttpClient

_STATES = ["RUNNING", "IDLE", "STOPPED_GRACEFUL", "DISCONNECTED"]


@click.command(epilog="Example: pyoco-client workers --scope all --output table")
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
@pass_client
def workers(client: PyocoHttpClient, /, output: str, include_hidden: bool, **query: Any) -> None:
    """List workers, last seen first."""
    items = client.get_workers(include_hidden=include_hidden or None, **query)
    if output == "json":
        print_json(items)
    elif output == "table":
        print_table(WORKER_COLUMNS, items)
    else:
        print_table(["worker_id", "state", "tags", "package", "version", "wheel_name", "tasks"], _plugins(items))


@click.command(epilog="Example: pyoco-client metrics | grep pyoco_runs_total")
@pass_client
def metrics(client: PyocoHttpClient, /) -> None:
    """Show the server's metrics, as Prometheus reads them."""
    click.echo(client.get_metrics(), nl=False)


COMMANDS = [workers, metrics]


def _plugins(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give a row for each wheel and each plug-in package that a worker has; one row for a worker without any."""
    rows = []
    for item in items:
        state = item.get("wheel_sync") or {}
        found: dict[Any, dict[str, Any]] = {}
        for wheel in state.get("installed_wheels") or []:
            found[wheel.get("package_name")] = {
                "package": wheel.get("package_name"),
                "version": wheel.get("package_version"),
                "wheel_name": wheel.get("wheel_name"),
                "tasks": [],
            }
        for plugin in state.get("plugins") or []:
            empty: dict[str, Any] = {
                "package": plugin.get("package_name"),
                "version": plugin.get("package_version"),
                "tasks": [],
            }
            offered = found.setdefault(plugin.get("package_name"), empty)
            offered["tasks"] = [*offered["tasks"], *(plugin.get("tasks") or [f"({plugin.get('error') or 'none'})"])]
        shown: list[dict[str, Any]] = list(found.values()) or [{"tasks": []}]
        rows += [{**item, **row, "tasks": ", ".join(row["tasks"])} for row in shown]
    return rows
