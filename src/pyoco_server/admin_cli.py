"""``pyoco-server-admin`` and ``python -m pyoco_server.admin_cli``."""

import sys

import click

from pyoco_server import __version__
from pyoco_server.cli.keys import api_key
from pyoco_server.cli.nats_option import nats_url_option
from pyoco_server.cli.output import run_command
from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.secrecy import hide, keep_secrets


@click.group(epilog="Example: pyoco-server-admin api-key create --tenant demo --expires 90d")
@click.version_option(__version__)
@nats_url_option
@click.pass_context
def command(context: click.Context, nats_url: str | None) -> None:
    """Administer a pyoco-server. Speaks to NATS, not to the gateway."""
    settings = Settings.from_env(nats_url=nats_url)
    keep_secrets(settings)
    quiet = settings.model_copy(update={"log_level": "ERROR", "log_format": "text"})
    configure_logging(service="pyoco-server-admin", settings=quiet, stderr=True)  # stdout is for the answer
    context.obj = settings


command.add_command(api_key)


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is the answer."""
    if argv is None:
        hide()
    return run_command(command, argv, "pyoco-server-admin")


if __name__ == "__main__":
    sys.exit(main())
