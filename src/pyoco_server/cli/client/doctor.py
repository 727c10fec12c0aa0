"""``doctor``."""

from typing import Any

import click

from pyoco_server.cli.client.root import pass_client
from pyoco_server.cli.findings import lang_option, output_option, print_findings
from pyoco_server.cli.language import terminal_language
from pyoco_server.client.diagnosis import Diagnosis
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.model.text.languages import Language


@click.command(epilog="Example: pyoco-client --server http://10.0.0.1:8000 doctor")
@output_option
@lang_option
@click.pass_context
@pass_client
def doctor(client: PyocoHttpClient, /, context: click.Context, output: str, lang: Language | None) -> int:
    """Tell what is wrong with the server, NATS, workers and the way to them; exit code 0: nothing, 1: something."""
    language = lang or terminal_language()
    options = context.find_root().params
    diagnosis = Diagnosis(client, options["server"], has_key=bool(options["api_key"]), language=language)
    findings = diagnosis.findings()
    return print_findings(
        findings, output=output, language=language, about=diagnosis.about, head=_head(diagnosis.about)
    )


COMMANDS = [doctor]


def _head(about: dict[str, Any]) -> str:
    parts = [f"pyoco-server {about['version'] or ''} {about['server']}".replace("  ", " ")]
    if about["nats_server"]:
        parts.append(f"NATS {about['nats_server']}")
    states = {state: count for state, count in (about.get("workers") or {}).items() if count}
    if states:
        parts.append("workers: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    if about.get("scope") == "tenant":
        parts.append("of the key's tenant: an operator's key tells of the whole system")
    return " · ".join(parts)
