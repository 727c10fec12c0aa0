"""``pyoco-server-admin`` and ``python -m pyoco_server.admin_cli``."""

import sys

import click

from pyoco_server import __version__
from pyoco_server.cli.nats_option import nats_url_option
from pyoco_server.cli.output import run_command
from pyoco_server.errors import CommandFailed


@click.group()
@click.version_option(__version__)
@nats_url_option
def command(nats_url: str | None) -> None:
    """Administer a pyoco-server."""


@command.command(name="api-key", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1)
def api_key(arguments: tuple[str, ...]) -> None:
    """Create, list and revoke keys (not in this version)."""
    raise CommandFailed(
        "this version has no authentication, so there are no keys to administer",
        hint="Keep the gateway on 127.0.0.1, or behind a proxy that asks for a password.",
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is the answer."""
    return run_command(command, argv, "pyoco-server-admin")


if __name__ == "__main__":
    sys.exit(main())
