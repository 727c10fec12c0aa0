"""``logs``."""

import time
from collections.abc import Iterator
from typing import Any

import click

from pyoco_server.cli.client.following import EXIT_CODES
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
    printer = _LinePrinter()
    show = print_json if output == "json" else printer.show
    status = None
    if follow:
        for event in follow_log(client, run_id, tail=tail, **query):
            data = event["data"] if isinstance(event["data"], dict) else {}
            for line in data.get("lines") or ():
                show(line)
            status = data.get("status") or status
    else:
        for line in client.get_logs(run_id, tail=tail, **query)["lines"]:
            show(line)
    printer.close()
    return EXIT_CODES.get(status or "", 0)


COMMANDS = [logs]


def follow_log(client: PyocoHttpClient, run_id: str, *, tail: int | None, **query: Any) -> Iterator[dict[str, Any]]:
    """Give the events of a log until its end, over broken connections: no line is lost or comes twice.

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


class _LinePrinter:
    """Prints lines behind the names of their tasks, and puts together what was cut into pieces."""

    def __init__(self) -> None:
        self._attempt: Any = None
        self._open: tuple[Any, ...] | None = None

    def show(self, line: Line) -> None:
        """Print a line, or a piece of one."""
        attempt, task, text = line.get("attempt"), line.get("task"), str(line.get("text", ""))
        if self._attempt not in (None, attempt):
            self._say(f"attempt {attempt}")
        self._attempt = attempt
        if line.get("stream") == "notice":
            self._say(text)
            return
        place = (attempt, task, line.get("stream"))
        # A progress bar goes back to the beginning of its line: here each of its states is a line.
        for number, part in enumerate(text.split("\r")):
            if number or place != self._open:
                self.close()
            if self._open is None and (part or "\r" not in text):
                print_part(f"{task or '-'} | ", end=False)
                self._open = place
            print_part(part, end=False)
        if not line.get("continued"):
            self.close()

    def close(self) -> None:
        """End the line that is open."""
        if self._open is not None:
            print_part("", end=True)
            self._open = None

    def _say(self, text: str) -> None:
        self.close()
        print_part(f"-- {text} --", end=True)
