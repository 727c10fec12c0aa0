"""The option that every command has which speaks to NATS itself."""

import click

from pyoco_server.cli.output import print_warning


def _warn(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value and "@" in value:
        print_warning("whoever lists this machine's processes reads the password in --nats-url; "
                      "give it as PYOCO_NATS_USER and PYOCO_NATS_PASSWORD, or a file by PYOCO_NATS_CREDS")  # fmt: skip
    return value


nats_url_option = click.option(
    "--nats-url",
    callback=_warn,
    help="Where NATS is; several servers comma separated  [env: PYOCO_NATS_URL; default: nats://127.0.0.1:4222]",
)
