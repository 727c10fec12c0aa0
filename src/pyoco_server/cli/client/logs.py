"""``logs``."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from pyoco_server.cli.client.following import EXIT_CODES
from pyoco_server.cli.client.livearea import LiveArea
from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.output import print_json, print_part
from pyoco_server.client.errors import ApiError, CannotConnect
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.patience import Patience

Line = dict[str, Any]


@click.command(epilog="Example: pyoco-client logs <run_id> -f")
@click.argument("run_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended; the exit code tells how.")
@click.option("--tail", type=click.IntRange(0, 10_000), help="Only, or begin with, so many of the last lines.")
@click.option("--task", help="Only this task's lines.")
@click.option("--stream", type=click.Choice(["stdout", "stderr", "notice"]), help="Only this stream's lines.")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="Lines as a person reads them, or one JSON object a line.",
)  # fmt: skip
@pass_client
def logs(
    client: PyocoHttpClient,
    /,
    run_id: str,
    follow: bool,
    tail: int | None,
    task: str | None,
    stream: str | None,
    output: str,
) -> int:
    """Show what a run's tasks print."""
    query = {"task": task, "stream": stream}
    printer = _JsonPrinter() if output == "json" else _LinePrinter(live=follow and sys.stdout.isatty())
    status = None
    if follow:
        for event in follow_log(client, run_id, tail=tail, **query):
            data = event["data"] if isinstance(event["data"], dict) else {}
            printer.show(data.get("lines") or [], data.get("live"))
            status = data.get("status") or status
    else:
        printer.show(client.get_logs(run_id, tail=tail, **query)["lines"])
    printer.close()
    return EXIT_CODES.get(status or "", 0)


COMMANDS = [logs]


def follow_log(client: PyocoHttpClient, run_id: str, *, tail: int | None, **query: Any) -> Iterator[dict[str, Any]]:
    """Return the events of a log until its end, over broken connections: no line is lost or comes twice.

    Raises:
        CannotConnect: the server was away for 30 seconds, or cannot be reached at all.
        ApiError: there is no such run, or the server refused.
    """
    patience = Patience(deadline=None)
    seen: str | None = None
    reached = False
    while True:
        opened = time.monotonic()
        try:
            for event in client.follow_logs(run_id, tail=tail, last_event_id=seen, **query):
                reached = True
                patience.renew()
                if event.get("id"):
                    seen, tail = event["id"], None
                yield event
                if event["event"] == "end":
                    return
        except (CannotConnect, ApiError) as error:
            if not reached:
                raise
            patience.bear(error)
            continue
        if time.monotonic() - opened < 1:
            patience.pause()  # a server that is stopping ends its streams at once


class _JsonPrinter:
    def show(self, lines: list[Line], live: list[Line] | None = None) -> None:
        """Print lines; those that are not finished come again when they are."""
        for line in lines:
            print_json(line)

    def close(self) -> None:
        """There is nothing to end."""


class _LinePrinter:
    """Prints lines behind the names of their tasks, and puts together what was cut into pieces.

    Args:
        live: Whether to draw what is not finished below them.
    """

    def __init__(self, *, live: bool) -> None:
        self._attempt: Any = None
        self._open: tuple[Any, ...] | None = None
        self._area = LiveArea() if live else None
        self._live: list[Line] = []

    def show(self, lines: list[Line], live: list[Line] | None = None) -> None:
        """Print lines.

        Args:
            lines: What has come.
            live: What is not finished; ``None`` if that has not changed.
        """
        self._live = self._live if live is None else live
        if self._area is not None and (lines or live is not None):
            self._area.erase()
        for line in lines:
            self._print(line)
        if self._area is not None and self._open is None and (lines or live is not None):
            self._area.draw([_row(line) for line in self._live])

    def close(self) -> None:
        """End the line that is open."""
        if self._open is not None:
            print_part("", end=True)
            self._open = None

    def _print(self, line: Line) -> None:
        attempt = line.get("attempt")
        if self._attempt not in (None, attempt):
            self._say(f"attempt {attempt}")
        self._attempt = attempt
        if line.get("stream") == "notice":
            self._say(str(line.get("text", "")))
            return
        place = (attempt, line.get("task"), line.get("stream"))
        text = str(line.get("text", ""))
        if place != self._open or "\r" in text:
            self.close()
            print_part(f"{line.get('task') or '-'} | ", end=False)
        print_part(_last_state(text), end=False)
        self._open = place
        if not line.get("continued"):
            self.close()

    def _say(self, text: str) -> None:
        self.close()
        print_part(f"-- {text} --", end=True)


def _row(line: Line) -> str:
    text = str(line.get("text", ""))
    return f"-- {text} --" if line.get("stream") == "notice" else f"{line.get('task') or '-'} | {text}"


def _last_state(text: str) -> str:
    """Return what a terminal shows of a line that was rewritten; once all of its states were stored."""
    return next((part for part in reversed(text.split("\r")) if part.strip()), "") if "\r" in text else text
