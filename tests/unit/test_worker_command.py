"""How ``pyoco-worker`` ends, by which whoever starts workers again tells a crash from settings that cannot be used."""

import pytest

from pyoco_server.cli import worker


@pytest.mark.parametrize(
    ("words", "code"), [(["--tags", "a.b"], 1), (["--no-such-option"], 1), (["--help"], 0), (["--concurrency", "x"], 1)]
)
def test_what_it_was_given_is_refused(words: list[str], code: int) -> None:
    assert worker.main(words) == code


@pytest.mark.parametrize("kind", [RecursionError, OverflowError, KeyError, RuntimeError])
def test_what_nobody_caught_is_told_and_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise kind("by user code")

    monkeypatch.setattr(worker, "parse_tags", fail)
    assert worker.main(["--worker-id", "w"]) == 70
