"""Failed keys by address: the limit, its bound, and what is logged."""

import pytest
from structlog.testing import capture_logs

from pyoco_server.gateway.access import failed_keys as attempts
from pyoco_server.gateway.access.failed_keys import FailedKeys
from pyoco_server.gateway.access.peer_address import source
from pyoco_server.model.apikey import Refusal
from pyoco_server.process import reports
from pyoco_server.process.reports import Reports


def fail(failed: FailedKeys, address: str, now: float, times: int = 1) -> None:
    for _ in range(times):
        failed.failed(address, Refusal.UNKNOWN, None, now)


def test_a_burst_is_looked_at_then_one_now_and_then() -> None:
    failed = FailedKeys()
    fail(failed, "a", 100.0, 19)
    assert failed.wait("a", 100.0) == 0
    fail(failed, "a", 100.0)
    assert failed.wait("a", 100.0) == 3
    assert failed.wait("b", 100.0) == 0
    assert failed.wait("a", 102.0) == 1
    assert failed.wait("a", 103.0) == 0
    fail(failed, "a", 103.0)
    assert failed.wait("a", 103.0) == 3
    assert failed.wait("a", 1e6) == 0


def test_failing_on_costs_no_debt() -> None:
    failed = FailedKeys()
    fail(failed, "a", 0.0, 500)
    assert failed.wait("a", 0.0) == 3


def test_the_table_is_bounded_and_the_last_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_MOST", 3)
    failed = FailedKeys()
    fail(failed, "a", 0.0, 20)
    for address in ("b", "c"):
        fail(failed, address, 0.0)
    fail(failed, "a", 0.0)
    fail(failed, "d", 0.0)
    assert list(failed._brake._known) == ["c", "a", "d"]
    assert failed.wait("a", 0.0)


def test_one_line_a_minute_and_address_tells_of_all() -> None:
    failed = FailedKeys()
    with capture_logs() as lines:
        fail(failed, "a", 0.0, 5)
        fail(failed, "b", 1.0)
        fail(failed, "a", 59.0)
        fail(failed, "a", 60.0)
    assert [(line["address"], line["attempts"]) for line in lines] == [("a", 1), ("b", 1), ("a", 6)]


def test_lines_are_bounded_by_the_last_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_MOST", 2)
    told = Reports()
    assert [told.due(address, 0.0) for address in ("a", "b", "a", "c", "a", "b")] == [1, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa:bbbb:cccc:dddd", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        (None, "unknown"),
    ],
)
def test_addresses(host: str | None, counted: str) -> None:
    assert source(host) == counted
