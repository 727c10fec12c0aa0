"""What commands print: JSON, tables, errors."""

import errno
import json
import sys
from typing import Any

import click

from pyoco_server.cli.streams import OutputLost, give_up, standard_streams
from pyoco_server.errors import PyocoError
from pyoco_server.model.text.terminal import plain

RUN_COLUMNS = ["run_id", "status", "flow_name", "tag", "updated_at"]


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


def print_part(text: str, *, end: bool) -> None:
    """Print a piece of a line, and the line's end where it ends."""
    click.echo(plain(text, keep="\t"), nl=end)


def print_lines(*lines: str) -> None:
    """Print sentences, each on a line of its own; an empty one is left out."""
    for line in filter(None, lines):
        click.echo(plain(line))


def print_error(error: PyocoError) -> None:
    """Print an error and its hint on stderr."""
    _complain(error.message, error.hint)


def print_note(text: str) -> None:
    """Tell the user on stderr what goes on meanwhile."""
    sys.stderr.write(plain(text) + "\n")


def print_warning(text: str) -> None:
    """Print on stderr what is not as it should be, but does not stop the command."""
    sys.stderr.write("warning: " + plain(text) + "\n")


def run_command(command: click.Command, argv: list[str] | None, name: str) -> int:
    """Run a click command; every error that we know becomes a message and an exit code.

    Args:
        command: The command.
        argv: Its arguments; those of the process when not given.
        name: Its name in help and errors.
    """
    try:
        with standard_streams():
            return _run(command, argv, name)
    except OutputLost as lost:
        give_up()
        if lost.errno != errno.EPIPE:  # whoever reads less than all of it, as head does, knows that
            _complain(f"the output cannot be written: {lost.strerror}")
        return 1


def _run(command: click.Command, argv: list[str] | None, name: str) -> int:
    try:
        result = command.main(args=argv, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        return _refuse(error, name)
    except (PyocoError, TimeoutError, UnicodeEncodeError) as error:
        return _report(error)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except SystemExit:  # click's quiet way out when the reader of our output (head, less) has seen enough
        give_up()
        return 1
    return result if isinstance(result, int) else 0


def _refuse(error: click.ClickException, name: str) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()  # its message is the help
        return 1
    context = error.ctx if isinstance(error, click.UsageError) else None
    _complain(error.format_message(), f"{context.command_path if context else name} --help")
    return 1


def _report(error: PyocoError | TimeoutError | UnicodeEncodeError) -> int:
    if isinstance(error, PyocoError):
        print_error(error)
        return error.exit_code
    if isinstance(error, UnicodeEncodeError):  # an argument that is no text, or a terminal of another alphabet
        _complain(f"{error.object[error.start : error.end]!a} cannot be written as {error.encoding}")
        return 1
    _complain(str(error))
    return 124


def _complain(message: str, hint: str = "") -> None:
    sys.stderr.write("error: " + plain(message, keep="\n") + "\n")
    if hint:
        sys.stderr.write("hint: " + plain(hint, keep="\n") + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return plain(",".join(map(str, value)) if isinstance(value, list) else str(value))
