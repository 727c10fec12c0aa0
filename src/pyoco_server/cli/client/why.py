"""``why``."""

import click

from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.language import terminal_language
from pyoco_server.cli.output import print_json, print_lines
from pyoco_server.client.http import PyocoHttpClient


@click.command(epilog="Example: pyoco-client why <run_id>")
@click.argument("run_id")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="The sentence and what to do, or all that is known.",
)  # fmt: skip
@click.option("--lang", type=click.Choice(["en", "ja"]), help="Language of the text; by default that of the terminal.")
@pass_client
def why(client: PyocoHttpClient, /, run_id: str, output: str, lang: str | None) -> None:
    """Tell why a run is not running, what it does, or how it ended."""
    answer = client.why_run(run_id, lang=lang or terminal_language())
    if output == "json":
        print_json(answer)
    else:
        print_lines(answer["message"], answer["hint"])


COMMANDS = [why]
