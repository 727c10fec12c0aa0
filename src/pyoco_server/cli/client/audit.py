"""``audit``."""

import datetime
from typing import Any

import click

from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.output import print_json, print_note, print_table
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.model.audit import AuditAction, AuditOutcome

_COLUMNS = ["at", "action", "outcome", "target", "tenant_id", "api_key_id", "remote_addr"]


@click.command(epilog="Example: pyoco-client audit --action run.cancel --output table")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="How many at most.")
@click.option("--cursor", help="next_cursor of the page before.")
@click.option("--action", type=click.Choice([action.value for action in AuditAction]), help="Only of this kind.")
@click.option("--actor", metavar="KEY_ID", help="Only what was done with this key.")
@click.option("--target", metavar="ID", help="Only of things whose id begins so: a run, a letter, a wheel, …")
@click.option("--outcome", type=click.Choice([outcome.value for outcome in AuditOutcome]), help="Only with this one.")
@click.option("--output", type=click.Choice(["json", "table"]), default="json", show_default=True, help="How to print.")
@pass_client
def audit(client: PyocoHttpClient, /, output: str, **query: Any) -> None:
    """List who changed what, or was refused, the newest first. Needs an admin's key."""
    page = client.list_audit(**query)
    if output == "json":
        print_json(page)
        return
    print_table(_COLUMNS, [_row(item) for item in page["items"]])
    if page["next_cursor"]:
        print_note(f"there are more: --cursor {page['next_cursor']}")


def _row(item: dict[str, Any]) -> dict[str, Any]:
    at = datetime.datetime.fromtimestamp(item["at"], datetime.timezone.utc)
    return {
        **item,
        **item["actor"],
        "at": at.isoformat(timespec="seconds"),
        "target": f"{item['target']['kind']} {item['target'].get('id') or '-'}",
        "remote_addr": item["source"].get("remote_addr"),
    }


COMMANDS = [audit]
