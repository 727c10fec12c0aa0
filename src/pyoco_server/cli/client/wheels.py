"""``wheels``, ``wheel-upload``, ``wheel-history``, ``wheel-delete``, ``wheel-pin``, ``wheel-unpin``."""

from pathlib import Path

import click

from pyoco_server.cli.client.preflight import Issue, IssueKind, look_at
from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.client.worker_tables import with_tenant
from pyoco_server.cli.output import print_json, print_table, print_warning
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.errors import InvalidInput
from pyoco_server.model.tags import parse_tags
from pyoco_server.model.wheels.file_name import parse_wheel_name

_COLUMNS = ["package", "version", "tags", "pinned_at", "size_bytes", "name"]
_HISTORY_COLUMNS = ["occurred_at", "action", "wheel_name", "tags", "size_bytes", "remote_addr"]

_output = click.option(
    "--output", type=click.Choice(["json", "table"]), default="json", show_default=True, help="How to print."
)
_tenant = click.option(
    "--tenant", help="Whose wheel is meant  [default: your own tenant's; with an operator's key, one that all share]"
)


@click.command(epilog="Example: pyoco-client wheels --output table")
@_output
@pass_client
def wheels(client: PyocoHttpClient, /, output: str) -> None:
    """List uploaded wheels by name."""
    items = client.list_wheels()
    if output == "table":
        print_table(with_tenant(_COLUMNS, items), items)
    else:
        print_json(items)


@click.command(
    name="wheel-upload", epilog="Example: pyoco-client wheel-upload --wheel-file dist/x-1.0-py3-none-any.whl"
)
@click.option("--wheel-file", required=True, type=click.Path(path_type=Path), help="The wheel.")
@click.option("--tags", help="The workers that shall use it, by their tags, comma separated  [default: all]")
@click.option(
    "--tenant",
    help="Only the runs of this tenant shall have it  [default: your own; with an operator's key, all tenants]",
)
@click.option("--replace/--no-replace", default=True, help="Without effect: a stored version is never replaced.")
@click.option(
    "--preflight",
    type=click.Choice(["strict", "warn", "off"]),
    default="warn",
    show_default=True,
    help="What to do if the wheel offers no tasks, or tasks without a usage text: refuse, tell, or do not look.",
)
@click.option("--allow-no-entry-points", is_flag=True, help="It may offer no tasks (entry points pyoco.tasks).")
@click.option("--allow-missing-usage-doc", is_flag=True, help="Its tasks may have no usage text.")
@pass_client
def wheel_upload(
    client: PyocoHttpClient,
    /,
    wheel_file: Path,
    tags: str | None,
    tenant: str | None,
    replace: bool,
    preflight: str,
    allow_no_entry_points: bool,
    allow_missing_usage_doc: bool,
) -> None:
    """Upload a wheel for workers to use.

    Before that its plug-ins are loaded in a process of its own and asked for their tasks (--preflight).
    """
    parse_wheel_name(wheel_file.name)
    labels = parse_tags(tags) if tags is not None else None
    if preflight != "off":
        allowed = {
            IssueKind.NO_ENTRY_POINTS: allow_no_entry_points,
            IssueKind.MISSING_USAGE: allow_missing_usage_doc,
        }
        _judge([issue for issue in look_at(wheel_file) if not allowed.get(issue.kind)], strict=preflight == "strict")
    print_json(client.upload_wheel(path=wheel_file, replace=replace, tags=labels, tenant=tenant))


@click.command(name="wheel-history", epilog="Example: pyoco-client wheel-history --limit 20 --action upload")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="How many at most.")
@click.option("--wheel-name", help="Only of this file name.")
@click.option("--action", type=click.Choice(["upload", "delete", "pin", "unpin"]), help="Only of this kind.")
@_output
@pass_client
def wheel_history(
    client: PyocoHttpClient, /, limit: int, wheel_name: str | None, action: str | None, output: str
) -> None:
    """List what happened to wheels, the newest first."""
    items = client.list_wheel_history(limit=limit, wheel_name=wheel_name, action=action)
    if output == "table":
        print_table(with_tenant(_HISTORY_COLUMNS, items), [{**item, **(item.get("source") or {})} for item in items])
    else:
        print_json(items)


@click.command(name="wheel-delete", epilog="Example: pyoco-client wheel-delete --name x-1.0-py3-none-any.whl")
@click.option("--name", required=True, help="Its file name.")
@_tenant
@pass_client
def wheel_delete(client: PyocoHttpClient, /, name: str, tenant: str | None) -> None:
    """Delete a wheel; workers stop using it when they next look."""
    print_json(client.delete_wheel(name, tenant=tenant))


@click.command(name="wheel-pin", epilog="Example: pyoco-client wheel-pin task-cpu==0.1.0")
@click.argument("wheel", metavar="NAME==VERSION")
@_tenant
@pass_client
def wheel_pin(client: PyocoHttpClient, /, wheel: str, tenant: str | None) -> None:
    """Go back to a stored version: the workers of its tags use it although there may be newer ones.

    A file name is understood, too.
    """
    print_json(client.pin_wheel(wheel, tenant=tenant))


@click.command(name="wheel-unpin", epilog="Example: pyoco-client wheel-unpin task-cpu")
@click.argument("wheel", metavar="NAME")
@_tenant
@pass_client
def wheel_unpin(client: PyocoHttpClient, /, wheel: str, tenant: str | None) -> None:
    """Go on to the newest version: take back all pins of a package, or those of NAME==VERSION or of a file name."""
    print_json(client.unpin_wheel(wheel, tenant=tenant))


COMMANDS = [wheels, wheel_upload, wheel_history, wheel_delete, wheel_pin, wheel_unpin]


def _judge(issues: list[Issue], *, strict: bool) -> None:
    if issues and strict:
        raise InvalidInput(
            "the wheel is not uploaded: " + "; ".join(issue.text for issue in issues),
            hint="--preflight warn uploads it all the same; --allow-no-entry-points and --allow-missing-usage-doc "
            "say that it is meant to be so.",
        )
    for issue in issues:
        print_warning(issue.text)
