"""Numbers that users gave or tasks returned: the page shows them digit by digit as the server sends them."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import System, running_system

from .conftest import Dashboard
from .test_deadletters import publish

pytestmark = pytest.mark.browser

CODE = """
def give(seed, rate, steps):
    return {"given": [seed, rate, steps], "most": 2**63 - 1, "huge": 10**30, "one": 1.0, "int": 1,
            "sum": 0.1 + 0.2, "none": -0.0, "list": [-9007199254740993, 1e16, 5e-324, 1e22, 1.7976931348623157e308],
            "text": "9007199254740993"}

def plain():
    return 2**63 - 1

def whole():
    return 3.0

def fail():
    raise ValueError("no")
"""
FLOW = json.dumps({
    "version": 1, "flow": {"graph": "give >> plain >> whole >> fail"},
    "tasks": {name: {"callable": f"page_numbers:{name}"} for name in ("give", "plain", "whole", "fail")},
})  # fmt: skip
PARAMS = '{"seed": 9007199254740993, "rate": 1.0, "steps": [1e5, 0.1, -0.0, 123456789012345678901234567890]}'
SHOWN_PARAMS = [
    '"seed": 9007199254740993', '"rate": 1.0', "100000.0", "0.1", "-0.0", "123456789012345678901234567890",
]  # fmt: skip
SHOWN_OUTPUT = [
    "9007199254740993,", "1.0,", *SHOWN_PARAMS[2:],
    '"most": 9223372036854775807', '"huge": 1000000000000000000000000000000', '"one": 1.0', '"int": 1,',
    '"sum": 0.30000000000000004', '"none": -0.0', "-9007199254740993", "1e+16", "5e-324", "1e+22",
    "1.7976931348623157e+308", '"text": "9007199254740993"',
]  # fmt: skip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a worker."""
    folder = tmp_path_factory.mktemp("system")
    (folder / "page_numbers.py").write_text(CODE)
    with running_system(folder) as running:
        running.worker(worker_id="cpu-1")
        yield running


@pytest.fixture(scope="module")
def run_id(system: System) -> str:
    """A run with numbers everywhere, which left a dead letter."""
    form = {"flow_name": "numbers", "tag": "cpu", "params": PARAMS}
    answer = httpx2.post(f"{system.url}/runs/yaml", data=form, files={"workflow": ("flow.yaml", FLOW.encode())})
    ended = system.end(answer.raise_for_status().json()["run_id"])
    assert ended["status"] == "FAILED" and ended["params"] == json.loads(PARAMS)
    return str(ended["run_id"])


def expect_all(text: Any, wanted: list[str]) -> None:
    for each in wanted:
        expect(text).to_contain_text(re.compile(rf"(?<![\d.]){re.escape(each)}(?![\d.eE])"))


def test_a_run_a_task_and_what_is_copied(dashboards: Callable[..., Dashboard], system: System, run_id: str) -> None:
    dashboard = dashboards(system.url, permissions=["clipboard-read", "clipboard-write"])
    page = dashboard.open(f"/runs/{run_id}?task=give")
    values = page.locator(".panel .value")
    expect_all(values.nth(0), SHOWN_PARAMS)
    expect_all(values.nth(1), SHOWN_OUTPUT)
    values.nth(1).get_by_role("button").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('huge'))")
    assert page.evaluate("navigator.clipboard.readText()") == values.nth(1).locator("pre").inner_text()
    source = page.locator(".source details")
    for fold in (source.first, source.last):
        fold.locator("summary").click()
    expect_all(source.first, SHOWN_PARAMS)
    expect_all(source.last, SHOWN_OUTPUT)
    record = source.last.locator("pre").inner_text()
    sent = httpx2.get(f"{system.url}/runs/{run_id}?include=records").text
    assert without_spaces(record) == without_spaces(sent)[: len(without_spaces(record))]  # to where it is folded
    for task, output in (("plain", "9223372036854775807"), ("whole", "3.0")):
        page.locator(f".gantt [data-task='{task}']").click()
        expect(page.locator(".panel .value pre").last).to_have_text(output)
    dashboard.shoot("numbers")


def without_spaces(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_a_run_again_has_the_same_numbers(dashboard: Dashboard, system: System, run_id: str) -> None:
    page = dashboard.open(f"/runs/{run_id}")
    page.get_by_role("button", name="Run again").click()
    expect(page.locator(".facts")).to_contain_text("Rerun of")
    page.locator(".source summary").first.click()
    expect_all(page.locator(".source details").first, SHOWN_PARAMS)
    again = page.url.rsplit("/", 1)[1]
    assert '"seed":9007199254740993,"rate":1.0' in httpx2.get(f"{system.url}/runs/{again}").text


def test_dead_letters(dashboard: Dashboard, system: System, run_id: str) -> None:
    page = dashboard.open("/deadletters?tag=cpu")
    page.locator("td.letter a").first.click()
    expect_all(page.locator(".panel .value", has_text="Params"), SHOWN_PARAMS)
    body = '{"reason": "invalid_job", "error": 9007199254740993, "payload": %s, "params": 18446744073709551617}'
    payloads = {
        '{"n": 1e400, "m": 9007199254740993}': ['"n": 1e400', '"m": 9007199254740993'],
        "9007199254740993": ["9007199254740993"],
        "{9007199254740993": ["{9007199254740993"],  # no JSON
    }
    ids = publish(system, *((body % json.dumps(payload)).encode() for payload in payloads), tag="odd")
    for letter_id, shown in zip(ids, payloads.values(), strict=True):
        dashboard.open(f"/deadletters?tag=odd&letter={letter_id}")
        panel = page.locator(".panel.letter")
        expect(panel.locator(".what-happened")).to_have_text("9007199254740993")
        expect_all(panel.locator(".value").first, shown)
        expect(panel.locator(".value").last.locator("pre")).to_have_text("18446744073709551617")


def imported(page: Page, script: str, value: Any) -> Any:
    """Give what a function of the page's own modules makes of a value."""
    files = page.evaluate("document.querySelector('script[src]').src").rpartition("/")[0]
    return page.evaluate(f"async ([files, value]) => {{ {script} }}", [files, value])


ROUND = """
const { read, written } = await import(`${files}/json.js`);
return value.map((text) => { try { return written(read(text)); } catch (error) { return error.name; } });
"""
KEYS = st.text(max_size=5).filter(lambda key: not key.isdigit())  # those of numbers come first in JavaScript
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
    | st.integers(-(10**40), 10**40) | st.sampled_from(['"', "\\", '\\"1.0', "1.0", "-0", "é\u2028", "\\\\"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12,
)  # fmt: skip


def test_what_is_read_is_written_the_same_way(dashboard: Dashboard) -> None:
    page = dashboard.open("/runs")

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(st.lists(st.lists(VALUES, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=3), max_size=12))
    def check(documents: list[Any]) -> None:
        texts = [json.dumps(document, ensure_ascii=False, separators=(",", ":")) for document in documents]
        assert imported(page, ROUND, texts) == texts

    check()
    others = ['{"a":1E5,"b":-0,"c":[1e400,0.10,0e0],"__proto__":{"":2.50}}', "[" + "1.0," * 5000 + "1.0]",
              '["' + '\\"1.0' * 200_000 + '",1.0]', "[" * 500 + "1.0" + "]" * 500]  # fmt: skip
    assert imported(page, ROUND, others) == others
    bad = ["{9007199254740993: 1}", "[01]", "[1.]", "[-]", '["1.0]', "NaN", "[1.0", "", '"\\"' * 50_001]
    assert imported(page, ROUND, bad) == ["SyntaxError"] * len(bad)


def test_numbers_of_our_own_stay_numbers(dashboard: Dashboard) -> None:
    script = """
    const { read, written } = await import(`${files}/json.js`);
    const one = read(value);
    const copy = { ...one, changed: 7 };
    return [one.at + 1, one.at === 2, typeof one.big, written(copy), written({ ...copy, at: 2.5 })];
    """
    told = imported(dashboard.open("/runs"), script, '{"at":2.0,"big":9007199254740993,"changed":1.0}')
    text = '{"at":%s,"big":9007199254740993,"changed":7}'
    assert told == [3, True, "number", text % "2.0", text % "2.5"]


def test_a_stream_of_events_too(dashboard: Dashboard, run_id: str) -> None:
    script = """
    const { serverEvents } = await import(`${files}/sse.js`);
    const { written } = await import(`${files}/json.js`);
    for await (const event of serverEvents(`/runs/${value}/watch`, { query: { include: "records" } }))
      if (event.name === "snapshot") return written(event.data.snapshot, 1);
    """
    text = imported(dashboard.open("/runs"), script, run_id)
    assert [each for each in SHOWN_OUTPUT if each not in text] == []
