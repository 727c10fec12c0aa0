"""``pyoco-client``: submit runs and look at them."""

from pyoco_server.cli.client import audit, dlq, doctor, logs, runs, submit, wheels, why, workers
from pyoco_server.cli.client.root import command
from pyoco_server.cli.output import run_command

for module in (submit, runs, logs, why, dlq, workers, wheels, audit, doctor):
    for part in module.COMMANDS:
        command.add_command(part)


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is the answer."""
    return run_command(command, argv, "pyoco-client")
