"""What commands print: JSON, tables, errors."""

import json
import sys
from typing import Any

import click

from pyoco_server.errors import PyocoError

RUN_COLUMNS = ["run_id", "status", "flow_name", "tag", "updated_at"]
WORKER_COLUMNS = ["worker_id", "state", "tags", "current_run_id", "host"]


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value))


def print_table(columns: list[str], items: list[dict[str, Any]]) -> None:
    """Print items as aligned columns, or ``(no items)``."""
    if not items:
        click.echo("(no items)")
        return
    rows = [columns, *([_cell(item.get(column)) for column in columns] for item in items)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_error(error: PyocoError) -> None:
    """Print an error and its hint on stderr."""
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")


def run_command(command: click.Command, argv: list[str] | None, name: str) -> int:
    """Run a click command; every error that we know becomes a message and an exit code.

    Args:
        command: The command.
        argv: Its arguments; those of the process when not given.
        name: Its name in help and errors.
    """
    try:
        result = command.main(args=argv, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.stderr.write(f"hint: {name} --help\n")
        return 1
    except PyocoError as error:
        print_error(error)
        return error.exit_code
    except TimeoutError as error:
        sys.stderr.write(f"error: {error}\n")
        return 124
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep Python from complaining at its own exit.
        sys.stdout = None
        return 0
    except (KeyboardInterrupt, click.Abort):
        return 130
    return result if isinstance(result, int) else 0


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
