"""How ``check`` and ``doctor`` print what they found."""

from collections.abc import Sequence
from typing import Any

import click

from pyoco_server.cli.output import print_json, print_lines
from pyoco_server.model.findings.finding import Severity
from pyoco_server.model.text.languages import Language

output_option = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)
lang_option = click.option(
    "--lang", type=click.Choice(["en", "ja"]), help="Language of the text; by default that of the terminal."
)

_WORDS: dict[Language, dict[str, str]] = {
    "en": {"error": "error", "warning": "warning", "info": "info", "none": "no problems found"},
    "ja": {"error": "エラー", "warning": "警告", "info": "情報", "none": "問題はありません"},
}


def print_findings(
    findings: Sequence[dict[str, Any]], *, output: str, language: Language, about: dict[str, Any], head: str
) -> int:
    """Print findings; the exit code is the answer: 1 if one of them is an error.

    Args:
        findings: As ``finding_texts.described`` gives them, the worst first.
        output: ``text`` or ``json``.
        language: Of the words around them.
        about: What the JSON tells beside them.
        head: What the text tells before them.
    """
    counts = {severity: sum(one["severity"] == severity.value for one in findings) for severity in Severity}
    if output == "json":
        print_json({"ok": not counts[Severity.ERROR], **about, "findings": list(findings)})
    else:
        words = _WORDS[language]
        print_lines(head)
        for one in findings:
            print_lines(f"{words[one['severity']]}: {one['message']} ({one['code']})")
            if one["hint"]:
                print_lines(f"  → {one['hint']}")
        told = [f"{words[severity.value]}: {count}" for severity, count in counts.items() if count]
        bad = counts[Severity.ERROR] or counts[Severity.WARNING]
        print_lines(", ".join(told) if bad else words["none"])
    return int(bool(counts[Severity.ERROR]))
