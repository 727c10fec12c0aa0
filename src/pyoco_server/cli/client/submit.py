"""``submit``, ``submit-yaml`` and ``rerun``."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pyoco_server.cli.client.following import EXIT_CODES, wait_for_end
from pyoco_server.cli.client.params import read_params
from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.output import print_json, print_note
from pyoco_server.client.errors import CannotConnect
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.needs import OwnKey
from pyoco_server.errors import InvalidInput, PyocoError

_SERVER_FAULT = 500
_PARAM_OPTIONS = (
    click.option("--params-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                 help="JSON or YAML file with a mapping."),
    click.option("--params", help="""JSON object, such as '{"x": 1}'; over the file."""),
    click.option("--param", multiple=True, metavar="KEY=VALUE", help="One param; over both. JSON if it reads as such."),
    click.option("--idempotency-key", metavar="KEY",
                 help="Names the run: the same command again gives the same run. Made up when not given."),
    click.option("--timeout-sec", type=click.FloatRange(min=0, min_open=True), help="With --wait: give up after this."),
    click.option("--wait", is_flag=True, help="Wait for the end, print it, and exit 0, 3 or 8 by it."),
)  # fmt: skip


def _param_options(function: Any) -> Any:
    for option in reversed(_PARAM_OPTIONS):
        function = option(function)
    return function


@click.command(epilog="Example: pyoco-client submit --flow-name main --param x=1 --tag cpu")
@click.option("--flow-name", default="main", show_default=True, help="Which flow.")
@click.option("--tag", help="Which workers may run it.")
@click.option("--tags", help="Free labels, comma separated.")
@_param_options
@pass_client
def submit(client: PyocoHttpClient, /, flow_name: str, tag: str | None, tags: str | None, **options: Any) -> int:
    """Submit a run of a flow that the workers' resolver knows."""
    labels = [part.strip() for part in (tags or "").split(",") if part.strip()] or None
    params = read_params(options)
    with _key(options) as key:
        answer = client.submit_run(flow_name, params, tag=tag, tags=labels, idempotency_key=key)
    return _finish(client, answer, options)


@click.command(epilog="Example: pyoco-client submit-yaml --workflow-file flow.yaml --flow-name main --tag cpu")
@click.option(
    "--workflow-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The flow.yaml.",
)
@click.option("--flow-name", required=True, help="A label for the run.")
@click.option("--tag", help="Which workers may run it.")
@_param_options
@pass_client
def submit_yaml(
    client: PyocoHttpClient, /, workflow_file: Path, flow_name: str, tag: str | None, **options: Any
) -> int:
    """Submit a run of a flow.yaml."""
    try:
        text = workflow_file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"--workflow-file {workflow_file} cannot be read: {error.strerror}") from None
    params = read_params(options) or None
    with _key(options) as key:
        answer = client.submit_run_yaml(text, flow_name=flow_name, tag=tag, params=params, idempotency_key=key)
    return _finish(client, answer, options)


@click.command(epilog="Example: pyoco-client rerun <run_id> --wait")
@click.argument("run_id")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Names the new run: the same command again gives the same run. Made up when not given.",
)
@click.option("--timeout-sec", type=click.FloatRange(min=0, min_open=True), help="With --wait: give up after this.")
@click.option("--wait", is_flag=True, help="Wait for the end, print it, and exit 0, 3 or 8 by it.")
@pass_client
def rerun(client: PyocoHttpClient, /, run_id: str, **options: Any) -> int:
    """Start a new run of a run's flow and params, whatever became of it."""
    with _key(options) as key:
        answer = client.rerun_run(run_id, idempotency_key=key)
    return _finish(client, answer, options)


COMMANDS = [submit, submit_yaml, rerun]


@contextlib.contextmanager
def _key(options: dict[str, Any]) -> Iterator[str]:
    """Give the key that makes repeats safe; when the submission fails all the same, tell how to go on with it."""
    given = options["idempotency_key"]
    key = OwnKey(uuid.uuid4().hex) if given is None else given
    try:
        yield key
    except (PyocoError, KeyboardInterrupt) as error:
        unknown = isinstance(error, CannotConnect | KeyboardInterrupt) or error.http_status >= _SERVER_FAULT
        if unknown and given is None:
            print_note(f"in case it did arrive: the same command with --idempotency-key {key} is the same run")
        raise


def _finish(client: PyocoHttpClient, /, answer: dict[str, Any], options: dict[str, Any]) -> int:
    if not options["wait"]:
        print_json(answer)
        return 0
    try:
        snapshot = wait_for_end(client, answer["run_id"], options["timeout_sec"])
    except (PyocoError, TimeoutError, KeyboardInterrupt):
        # The run exists and goes on; without its id nobody could find it again.
        click.echo(f"run {answer['run_id']} was submitted: pyoco-client get {answer['run_id']}", err=True)
        raise
    print_json(snapshot)
    return EXIT_CODES[snapshot["status"]]
