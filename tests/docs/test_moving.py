"""The page about moving in names commands, options, codes, variables and exit codes that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from pyoco_server import errors
from pyoco_server.cli import client, server, worker
from pyoco_server.model.findings.finding import FindingCode
from pyoco_server.model.flow.flow_file import TaskSpec
from pyoco_server.model.moving.texts import MOVING_TEXTS
from pyoco_server.settings.environment import Settings, variable
from pyoco_server.store.moving import sample

PAGE = (Path(__file__).parents[2] / "docs/how-to/moving.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if not line.startswith("curl")
]
PROGRAMS: dict[str, click.Command] = {
    "pyoco-server": server.command, "pyoco-worker": worker.command, "pyoco-client": client.command,
}  # fmt: skip


def understood(command: click.Command, name: str, arguments: list[str]) -> dict[str, Any]:
    """Let a command, and those below it, read their arguments; what the last one understood is the answer."""
    context = command.make_context(name, list(arguments))
    left = [*context._protected_args, *context.args]
    if not isinstance(command, click.Group) or not left:
        return context.params
    name, below, rest = command.resolve_command(context, left)
    assert below is not None
    return understood(below, str(name), rest)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("/opt/pyoco/")])
def test_our_commands(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert understood(PROGRAMS[Path(program).name], program, arguments)


def test_their_commands_are_few() -> None:
    others = [line for line in COMMANDS if not line.startswith("/opt/pyoco/")]
    assert others and all(line.startswith("/opt/existing/bin/pyoco-") for line in others)


def test_what_the_check_prints() -> None:
    [shown] = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    codes = re.findall(r"\((\w+)\)$", shown, re.MULTILINE)
    assert codes and {FindingCode(code) for code in codes} <= MOVING_TEXTS.keys()
    hints = {text.en_hint for text in MOVING_TEXTS.values()}
    assert {line.strip().removeprefix("→ ") for line in shown.splitlines() if line.startswith("  →")} <= hints


def test_variables_and_keys() -> None:
    known = {variable(field) for field in Settings.model_fields}
    assert set(re.findall(r"PYOCO_\w*[A-Z]", PAGE)) - {"PYOCO_LOGS", "PYOCO_AUDIT", "PYOCO_ADVISORIES", "PYOCO_WORK",
                                                       "PYOCO_DLQ"} <= known  # fmt: skip
    assert {"retries", "timeout_sec"} <= TaskSpec.model_fields.keys()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (errors.RunNotFound, "no such run or wheel"), (errors.WheelNotFound, "no such run or wheel"),
        (errors.InvalidKey, "a key is missing or bad"), (errors.KeyRequired, "a key is missing or bad"),
        (errors.WheelVersionConflict, "the same version of a wheel"), (errors.InvalidInput, "bad arguments"),
    ],
)  # fmt: skip
def test_exit_codes(kind: type[errors.PyocoError], words: str) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| {words}")]
    assert row.split("|")[3].strip() == str(kind.exit_code)


def test_figures() -> None:
    assert f"{sample.MOST_MESSAGES:,} messages" in PAGE
    assert Settings.model_fields["run_max_attempts"].default == 3 and "three times in all" in PAGE
    assert Settings.model_fields["consumer_ack_wait_sec"].default == 30 and "after 30 s" in PAGE
    assert Settings.model_fields["wheel_max_bytes"].default == 512 * 1024**2 and "(512 MiB)" in PAGE
