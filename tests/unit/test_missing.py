"""A missing module, and the wheels of which the worker knows why it does not use them."""

import pytest

from pyoco_server.worker.wheels.missing import LeftOut, explain_missing

ABI = LeftOut(
    "acme_tool-1.0-cp39-cp39-win_amd64.whl", "it is for cp39-cp39-win_amd64, which this interpreter cannot install"
)
GPU = LeftOut(
    "acme.gpu_kit-1.0-py3-none-any.whl", "it is for workers of the tags gpu, this one has cpu", is_meant=False
)
BROKEN = LeftOut("rows-1.0-py3-none-any.whl", "it cannot be installed: bad zip")
ALL = [ABI, GPU, BROKEN]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "parts", "absent"),
    [
        ("no module named 'acme_tool' on this worker", ["the wheel acme_tool-1.0", "win_amd64, which"], ["rows"]),
        ("task 't' failed: ModuleNotFoundError: No module named 'acme_tool.sub'", ["the wheel acme_tool"], ["gpu"]),
        ("no module named 'acme_gpu_kit'", ["tags gpu, this one has cpu"], ["win_amd64"]),
        ("no module named 'Rows'. Did you mean 'row'?", [" This worker", "bad zip"], ["? . ", "acme"]),
        ("no module named 'acme'", ["acme_tool-1.0", "acme.gpu_kit"], ["rows"]),
        ("no module named 'cv2'", ["If a wheel has it", "acme_tool", "rows"], ["gpu"]),
        ("Task 'd' uses unknown task 'rows/clean'. Register it", ["the wheel rows-1.0"], ["acme"]),
        ("importing m:f failed: cannot import name 'x' from 'm'", [], ["wheel"]),
        ("no module named ''", [], ["wheel"]),
    ],
)
def test_what_the_wheels_explain(error: str, parts: list[str], absent: list[str]) -> None:
    text = error + explain_missing(error, ALL, None)
    assert all(part in text for part in parts), text
    assert not any(part in text for part in absent), text


def test_a_registry_that_cannot_be_followed() -> None:
    assert "not in step: NATS is away" in explain_missing("no module named 'x'", [], "NATS is away")
    assert explain_missing("no module named 'x'", [], None) == ""


def test_many_wheels_are_counted() -> None:
    many = [LeftOut(f"w{n}-1.0-py3-none-any.whl", "r" * 5000) for n in range(50)]
    told = explain_missing("no module named 'x'", many, None)
    assert "and 47 more" in told
    assert len(told) < 8000
