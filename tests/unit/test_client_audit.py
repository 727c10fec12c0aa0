"""``pyoco-client audit``: what it asks for and prints."""

import json

import httpx2
import pytest

from pyoco_server.cli.client import main
from tests.unit.client_fakes import fake_server

ENTRY = {
    "event_id": "e", "at": 1795522330.29, "action": "run.cancel", "outcome": "refused", "status": 404,
    "actor": {"tenant_id": "demo", "api_key_id": "k"}, "source": {"remote_addr": "10.0.0.7"},
    "target": {"kind": "run", "id": "r\x1b[2J", "tenant_id": "demo"}, "details": {},
}  # fmt: skip
OF_THE_COMMAND = {
    **ENTRY, "action": "key.create", "outcome": "done", "status": None,
    "actor": {"tenant_id": None, "api_key_id": None}, "source": {"host": "h"}, "target": {"kind": "key", "id": None},
}  # fmt: skip


def test_a_table_and_where_it_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server = fake_server(monkeypatch)
    page = {"items": [ENTRY, OF_THE_COMMAND], "next_cursor": "17"}
    server.answer = lambda _: httpx2.Response(200, json=page)
    options = "--limit 2 --cursor 19 --actor k --action run.cancel --outcome refused --target r --output table"
    assert main(["audit", *options.split()]) == 0
    assert dict(server.seen[0].url.params) == {
        "limit": "2", "cursor": "19", "actor": "k", "action": "run.cancel", "outcome": "refused", "target": "r",
    }  # fmt: skip
    printed = capsys.readouterr()
    head, first, second = (line.split() for line in printed.out.splitlines())
    assert head == ["at", "action", "outcome", "target", "tenant_id", "api_key_id", "remote_addr"]
    assert first == ["2026-11-24T12:12:10+00:00", "run.cancel", "refused", "run", "r?[2J", "demo", "k", "10.0.0.7"]
    assert second[1:] == ["key.create", "done", "key", "-", "-", "-", "-"]
    assert "--cursor 17" in printed.err
    assert main(["audit"]) == 0
    assert json.loads(capsys.readouterr().out) == page


def test_what_is_no_action_is_refused_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("audit --action run.fly".split()) == 1
    assert "run.cancel" in capsys.readouterr().err
