"""``get``, ``tasks``, ``list``, ``list-vnext``, ``watch``, ``cancel``."""

from collections.abc import Callable
from typing import Any

import click

from pyoco_server.cli.client.following import EXIT_CODES, follow, wait_for_end
from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.output import RUN_COLUMNS, print_json, print_table
from pyoco_server.client.answers import TERMINAL, snapshot_of
from pyoco_server.client.http import PyocoHttpClient


def _list_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--output", type=click.Choice(["json", "table"]), default="json", show_default=True, help="How to print."
        ),
        click.option("--limit", type=click.IntRange(1, 200), help="How many at most."),
        click.option("--full", is_flag=True, help="Whole snapshots with task records."),
        click.option("--tag", help="Only this tag."),
        click.option("--flow", help="Only this flow name."),
        click.option("--status", help="Only this one: PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED."),
    ):
        function = option(function)
    return function


@click.command(epilog="Example: pyoco-client get <run_id> --records")
@click.argument("run_id")
@click.option("--records", is_flag=True, help="With inputs, outputs and errors of its tasks.")
@pass_client
def get(client: PyocoHttpClient, /, run_id: str, records: bool) -> None:
    """Show a run."""
    print_json(client.get_run_with_records(run_id) if records else client.get_run(run_id))


@click.command(epilog="Example: pyoco-client tasks <run_id>")
@click.argument("run_id")
@pass_client
def tasks(client: PyocoHttpClient, /, run_id: str) -> None:
    """Show a run's tasks."""
    print_json(client.get_tasks(run_id))


@click.command(name="list", epilog="Example: pyoco-client list --tag cpu --limit 20 --output table")
@_list_options
@pass_client
def list_runs(client: PyocoHttpClient, /, output: str, **query: Any) -> None:
    """List runs, last updated first."""
    items = client.list_runs(**query)
    if output == "table":
        print_table(RUN_COLUMNS, items)
    else:
        print_json(items)


@click.command(name="list-vnext", epilog="Example: pyoco-client list-vnext --limit 100 --cursor <next_cursor>")
@_list_options
@click.option("--updated-after", type=float, help="Unix seconds; strictly after.")
@click.option("--cursor", help="next_cursor of the page before.")
@click.option("--workflow-yaml-sha256", help="Only runs of the flow.yaml with this hash.")
@pass_client
def list_vnext(client: PyocoHttpClient, /, output: str, **query: Any) -> None:
    """List runs page by page."""
    page = client.list_runs_vnext(**query)
    if output == "json":
        print_json(page)
        return
    print_table(RUN_COLUMNS, page["items"])
    if page.get("next_cursor"):
        click.echo(f"next_cursor: {page['next_cursor']}")


@click.command(epilog="Example: pyoco-client watch <run_id> --until-terminal --output status")
@click.argument("run_id")
@click.option("--records", is_flag=True, help="With task records.")
@click.option("--since", type=float, help="Leave out snapshots not newer than this, in unix seconds.")
@click.option(
    "--timeout-sec", type=click.IntRange(1), help="Stop after this many seconds; with --until-terminal: exit code 124."
)
@click.option("--max-events", type=click.IntRange(0), default=0, help="Stop after this many events; 0 for no limit.")
@click.option("--until-terminal", is_flag=True, help="Go on until the run has ended; the exit code tells how.")
@click.option("--output", type=click.Choice(["json", "status"]), default="json", show_default=True)
@pass_client
def watch(
    client: PyocoHttpClient,
    /,
    run_id: str,
    records: bool,
    since: float | None,
    timeout_sec: int | None,
    max_events: int,
    until_terminal: bool,
    output: str,
) -> int:
    """Show a run's snapshots as they come, one line each, with heartbeats in between."""
    if until_terminal:
        events = follow(client, run_id, records=records, since=since, timeout_sec=timeout_sec)
    else:
        window = min(timeout_sec, 600) if timeout_sec else None
        events = client.watch_run(run_id, include_records=records, since=since, timeout_sec=window)
    status = ""
    for count, event in enumerate(events, start=1):
        status = snapshot_of(event).get("status") or status
        _print_event(event, output)
        if count == max_events:
            break
    return EXIT_CODES.get(status, 0) if until_terminal else 0


@click.command(epilog="Example: pyoco-client cancel --run-id <run_id> --wait")
@click.option("--run-id", required=True, help="Which run.")
@click.option("--wait", is_flag=True, help="Wait for its end, show it then, and exit 8, or 0 or 3 if it came first.")
@click.option(
    "--timeout-sec", type=click.IntRange(1), default=30, show_default=True, help="With --wait: at most so long."
)
@click.option("--reason", help="Kept with the run.")
@pass_client
def cancel(client: PyocoHttpClient, /, run_id: str, wait: bool, timeout_sec: int, reason: str | None) -> int:
    """Ask a run to stop."""
    snapshot = client.cancel_run(run_id, reason=reason)
    came_first = snapshot.get("status") in TERMINAL
    if wait and not came_first:
        snapshot = wait_for_end(client, run_id, timeout_sec)
    status = str(snapshot.get("status"))
    print_json(snapshot)
    if status in TERMINAL and status != "CANCELLED":
        how = f"it had already {status} before the cancel" if came_first else f"it {status} before it could be stopped"
        click.echo(f"run {run_id}: {how}", err=True)
    return EXIT_CODES.get(status, 0) if wait else 0


COMMANDS = [get, tasks, list_runs, list_vnext, watch, cancel]


def _print_event(event: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(event)
        return
    data = event["data"] if isinstance(event["data"], dict) else {}
    status = snapshot_of(event).get("status", "-")
    click.echo(f"{data.get('ts', '-')}\t{event['event']}\t{status}\t{data.get('run_id', '-')}")
