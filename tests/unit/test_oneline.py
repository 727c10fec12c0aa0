"""JSON is one line for every reader, and still the same JSON."""

import json
import sys

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.cli.output import print_json
from pyoco_server.gateway.streaming import page_events as eventstream
from pyoco_server.gateway.streaming import run_watch as streams
from pyoco_server.model.text.oneline import one_line

SPLITTING = [chr(code) for code in range(sys.maxunicode + 1) if len(f"a{chr(code)}b".splitlines()) > 1]
ODD = {f"key{end}": [f"a{end}b"] for end in SPLITTING}


@pytest.mark.parametrize("write", [lambda value: pydantic_core.to_json(value).decode(),
                                   lambda value: json.dumps(value, ensure_ascii=False)])  # fmt: skip
def test_no_character_ends_a_line(write: object) -> None:
    text = one_line(write(ODD))  # type: ignore[operator]
    assert text.splitlines() == [text]
    assert json.loads(text) == ODD


@given(st.text())
def test_what_is_read_is_what_was_written(text: str) -> None:
    written = one_line(json.dumps({"x": text}, ensure_ascii=False))
    assert json.loads(written) == {"x": text} and len(written.splitlines()) == 1


def test_an_event_has_one_line_of_data() -> None:
    for event in (
        streams._event("snapshot", ODD, "1"),
        eventstream._event("runs", json.dumps(ODD, ensure_ascii=False), "1"),
    ):
        lines = event.encode().decode().splitlines()
        [data] = [line for line in lines if line.startswith("data: ")]
        assert json.loads(data.removeprefix("data: ")) == ODD
        assert {line.partition(":")[0] for line in lines} == {"id", "event", "data", ""}


def test_a_command_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(ODD)
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 1 and json.loads(text) == ODD
