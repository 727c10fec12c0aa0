"""The command itself, and the options that come before the subcommand."""

from collections.abc import Callable
from pathlib import Path

import click
from click.core import ParameterSource

from pyoco_server import __version__
from pyoco_server.cli.output import print_note
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.patience import GIVE_UP_SEC
from pyoco_server.errors import InvalidInput, PyocoError

pass_client = click.make_pass_decorator(PyocoHttpClient)

_EPILOG = """\b
Example:
  pyoco-client submit-yaml --workflow-file flow.yaml --flow-name main --tag cpu --wait

\b
Exit codes:
  0 ok, or the run COMPLETED    1 refused, or bad input     3 the run FAILED
  4 API key missing or wrong    5 no such run or worker     6 conflict
  7 server not reachable        8 the run was CANCELLED     124 timed out
  130 Ctrl-C

\b
Shell completion for bash (for zsh: zsh_source):
  eval "$(_PYOCO_CLIENT_COMPLETE=bash_source pyoco-client)"
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "--server", envvar="PYOCO_SERVER", default="http://127.0.0.1:8000", show_default=True, show_envvar=True,
    help="Address of the server.",
)  # fmt: skip
@click.option(
    "--api-key",
    envvar="PYOCO_API_KEY",
    show_envvar=True,
    help="Key, where the server asks for one. Better by the variable or a file: a command line is seen by everybody.",
)
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File that holds the key and nothing else.")
@click.option(
    "--api-key-header",
    envvar="PYOCO_HTTP_API_KEY_HEADER",
    default="X-API-Key",
    show_default=True,
    show_envvar=True,
    help="Header that carries the key.",
)
@click.option(
    "--retry-sec", type=click.FloatRange(min=0), default=GIVE_UP_SEC, show_default=True,
    help="How long a submission is repeated while the server is away; it stays one run.",
)  # fmt: skip
@click.pass_context
def command(
    context: click.Context,
    server: str,
    api_key: str | None,
    api_key_file: Path | None,
    api_key_header: str,
    retry_sec: float,
) -> None:
    """Submit runs to a pyoco-server and look at them."""
    if api_key_file is not None:
        if context.get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--api-key and --api-key-file are both given; leave one out")
        api_key = _read_key(api_key_file)
    client = PyocoHttpClient(
        server, api_key=api_key, api_key_header=api_key_header, retry_sec=retry_sec, on_retry=_tell_once(retry_sec)
    )
    context.obj = client
    context.call_on_close(client.close)


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidInput(f"--api-key-file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        key = ""
    if not key:
        raise InvalidInput(f"--api-key-file {path} holds no API key", hint="It holds the key and nothing else.")
    return key


def _tell_once(retry_sec: float) -> Callable[[PyocoError], None]:
    told = False

    def tell(error: PyocoError) -> None:
        nonlocal told
        if not told:
            told = True
            print_note(f"{error.message}; trying again for up to {retry_sec:g} s (Ctrl-C ends it)")

    return tell
