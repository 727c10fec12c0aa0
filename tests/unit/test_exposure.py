"""What is shown of values that came from the environment."""

from typing import Any

import pytest
from pyoco.core.models import Flow

from pyoco_server.worker.child.flow.exposure import Mask, expose, exposed_by


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG_OF_TEST", "s3cret-token")
    monkeypatch.setenv("LONGER_OF_TEST", "s3cret-token-2")
    monkeypatch.setenv("SHORT_OF_TEST", "on")
    monkeypatch.setenv("EMPTY_OF_TEST", "")


NAMES = ["LONG_OF_TEST", "LONGER_OF_TEST", "SHORT_OF_TEST", "EMPTY_OF_TEST", "NOT_SET_OF_TEST"]


@pytest.mark.parametrize(
    ("value", "as_input", "as_output"),
    [
        ("s3cret-token", "$env.LONG_OF_TEST", "$env.LONG_OF_TEST"),
        ("a s3cret-token-2.", "a $env.LONGER_OF_TEST.", "a $env.LONGER_OF_TEST."),
        ({"s3cret-token": ["s3cret-token"]}, {"$env.LONG_OF_TEST": ["$env.LONG_OF_TEST"]},
         {"$env.LONG_OF_TEST": ["$env.LONG_OF_TEST"]}),
        ("on", "$env.SHORT_OF_TEST", "on"),
        ("on and on", "on and on", "on and on"),
        ("", "", ""),
        ([1, None, True, 2.5], [1, None, True, 2.5], [1, None, True, 2.5]),
    ],
)  # fmt: skip
def test_names_stand_in_the_place_of_values(value: Any, as_input: Any, as_output: Any) -> None:
    mask = Mask(NAMES)
    assert (mask.inputs(value), mask.other(value)) == (as_input, as_output)
    nothing = Mask(())
    assert nothing.inputs(value) is value
    assert nothing.other(value) is value


def test_a_flow_exposes_what_it_names() -> None:
    flow = Flow()
    assert exposed_by(flow) == ()
    expose(flow, ["A", "B"])
    assert exposed_by(flow) == ("A", "B")
    flow.expose_env = "ONE"  # type: ignore[attr-defined] - as somebody may write it
    assert exposed_by(flow) == ("ONE",)
