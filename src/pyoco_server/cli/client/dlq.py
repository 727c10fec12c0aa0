"""``dlq list``, ``dlq show``, ``dlq replay``, ``dlq delete``."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.output import print_error, print_json, print_table
from pyoco_server.client.errors import ApiError, CannotConnect
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.model.deadletter import DeadLetterReason

_COLUMNS = ["id", "reason", "tag", "run_id", "flow_name", "error"]
_SHOWN_ERROR = 80
_PAGE = 200
_PARALLEL = 8
"""Requests at a time."""
_GONE = 404
_SERVER_FAULT = 500

Act = Callable[[int], dict[str, Any]]


@click.group(name="dlq", epilog="Example: pyoco-client dlq list --tag cpu --output table")
def dlq() -> None:
    """Look at dead letters: what could not be run to its end. Replay or delete them."""


def _selection(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--tag", help="With --all: of this tag."),
        click.option("--all", "everything", is_flag=True, help="All letters of a tag that are there now."),
        click.argument("ids", nargs=-1, type=click.IntRange(1)),
    ):
        function = option(function)
    return function


@dlq.command(name="list", epilog="Example: pyoco-client dlq list --tag cpu --output table")
@click.option("--tag", help="Only this tag.")
@click.option("--reason", type=click.Choice([reason.value for reason in DeadLetterReason]), help="Only of this kind.")
@click.option("--run-id", help="The one that this run has left.")
@click.option("--limit", type=click.IntRange(1, 500), help="How many at most.")
@click.option("--before", type=click.IntRange(1), help="The last id of the page before.")
@click.option("--output", type=click.Choice(["json", "table"]), default="json", show_default=True, help="How to print.")
@pass_client
def list_letters(client: PyocoHttpClient, /, output: str, **query: Any) -> None:
    """List dead letters, the newest first."""
    items = client.list_dead_letters(**query)
    if output == "table":
        print_table(_COLUMNS, [{**item, "error": _short(item.get("error"))} for item in items])
    else:
        print_json(items)


@dlq.command(epilog="Example: pyoco-client dlq show 17")
@click.argument("letter_id", metavar="ID", type=click.IntRange(1))
@pass_client
def show(client: PyocoHttpClient, /, letter_id: int) -> None:
    """Show all of a dead letter."""
    print_json(client.get_dead_letter(letter_id))


@dlq.command(epilog="Example: pyoco-client dlq replay 17 18, or: pyoco-client dlq replay --all --tag cpu")
@_selection
@pass_client
def replay(client: PyocoHttpClient, /, **selected: Any) -> int:
    """Start a new run of what each letter tells, and take the letter out."""
    return _each(client, client.replay_dead_letter, "replayed", **selected)


@dlq.command(epilog="Example: pyoco-client dlq delete 17 18, or: pyoco-client dlq delete --all --tag cpu")
@_selection
@pass_client
def delete(client: PyocoHttpClient, /, **selected: Any) -> int:
    """Take dead letters out."""
    return _each(client, client.delete_dead_letter, "deleted", **selected)


COMMANDS = [dlq]


def _each(
    client: PyocoHttpClient, act: Act, done: str, *, ids: tuple[int, ...], everything: bool, tag: str | None
) -> int:
    """Do the same with each letter, a few at a time; a line of JSON for each, an error for each that is refused.

    Returns:
        0, or the exit code of the first refusal.
    """
    if bool(ids) is everything or everything is not (tag is not None):
        raise click.UsageError("Give either the ids of letters, or --all with --tag.")
    pages = _pages(client, str(tag)) if everything else iter([list(dict.fromkeys(ids))])
    good, code, refused = 0, 0, 0
    fault: ApiError | CannotConnect | None = None

    def attempt(letter_id: int) -> dict[str, Any] | ApiError:
        nonlocal fault
        if fault:
            raise fault  # those that the pool has not yet been told to leave
        try:
            return act(letter_id)
        except CannotConnect as error:
            fault = error
            raise
        except ApiError as error:
            if error.status >= _SERVER_FAULT:
                fault = error  # so would all others
                raise
            return error

    with ThreadPoolExecutor(_PARALLEL) as pool:
        for page in pages:
            for letter_id, answer in zip(page, pool.map(attempt, page), strict=True):
                if not isinstance(answer, ApiError):
                    good += 1
                    print_json({"id": letter_id, **answer})
                elif not (everything and answer.status == _GONE):  # else somebody else was faster
                    refused += 1
                    code = code or answer.exit_code
                    print_error(answer)
    if everything:
        click.echo(f"{good} {done}" + (f", {refused} refused" if refused else ""), err=True)
    return code


def _pages(client: PyocoHttpClient, tag: str) -> Iterator[list[int]]:
    """Give the ids of a tag's letters from the newest downwards: what comes in meanwhile is left alone."""
    before: int | None = None
    while page := [item["id"] for item in client.list_dead_letters(tag=tag, limit=_PAGE, before=before)]:
        yield page
        before = page[-1]


def _short(error: Any) -> str | None:
    if not isinstance(error, str):
        return None
    line = error.strip().splitlines()[0] if error.strip() else ""
    return line if len(line) <= _SHOWN_ERROR else line[:_SHOWN_ERROR] + "…"
