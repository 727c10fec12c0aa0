"""The command itself, and the options that come before the subcommand."""

import click

from pyoco_server import __version__
from pyoco_server.client.http import PyocoHttpClient

pass_client = click.make_pass_decorator(PyocoHttpClient)


@click.group(
    epilog="Exit codes: 0 ok, 1 refused, 3 run FAILED, 4 key, 5 not found, 6 conflict, 7 no server, 8 run CANCELLED, "
    '124 time-out. Completion for bash: eval "$(_PYOCO_CLIENT_COMPLETE=bash_source pyoco-client)"'
)
@click.version_option(__version__)
@click.option("--server", envvar="PYOCO_SERVER", default="http://127.0.0.1:8000", show_default=True, show_envvar=True)
@click.option("--api-key", envvar="PYOCO_API_KEY", show_envvar=True, help="Key, where the server asks for one.")
@click.option("--api-key-header", default="X-API-Key", show_default=True)
@click.pass_context
def command(context: click.Context, server: str, api_key: str | None, api_key_header: str) -> None:
    """Submit runs to a pyoco-server and look at them."""
    client = PyocoHttpClient(server, api_key=api_key, api_key_header=api_key_header)
    context.obj = client
    context.call_on_close(client.close)
