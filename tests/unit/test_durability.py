"""What is said of an acknowledgement: only what servers said, and of the weakest."""

from typing import Any

import pytest

from pyoco_server.gateway.monitoring.durability import Server, describe
from pyoco_server.store.nats.connection import ServerName
from pyoco_server.store.status.copies import Copies

ONE = ServerName("ID1", "n1")


def kept(stream: str = "S", *servers: str, replicas: int = 1, memory: bool = False, later: bool = False) -> Copies:
    return Copies(stream, replicas, memory, later, frozenset(servers))


def told(name: str, *, always: bool = True, id: str = "", interval: float = 120.0) -> Server:
    return Server(id or name.replace("n", "ID"), name, always, interval, f"http://{name}/varz")


def said(streams: list[Copies], *servers: Server, troubles: tuple[str, ...] = (), wanted: int = 1) -> dict[str, Any]:
    return describe(streams, servers, troubles, ONE, wanted=wanted)


def test_one_server() -> None:
    always = said([kept()], told("n1"))
    assert (always["sync"], always["sync_interval_sec"], always["replicas"]) == ("always", None, 1)
    assert always["acknowledged_means"] == "NATS has forced it to the disk: a power cut takes nothing"
    assert (always["unknown"], always["hint"], always["weaker_streams"]) == (None, None, [])
    later = said([kept()], told("n1", always=False, interval=60))
    assert (later["sync"], later["sync_interval_sec"]) == ("interval", 60)
    assert "on the disk after 60 s at the latest: a power cut may take" in later["acknowledged_means"]


def test_of_several_the_weakest_counts() -> None:
    streams = [kept("A", "n1", "n2", "n3", replicas=3), kept("B", "n2", "n3", "n4", replicas=3)]
    servers = [told("n1"), told("n2"), told("n3", always=False), told("n4", always=False, interval=5), told("n9")]
    found = said(streams, *servers)
    assert (found["sync"], found["sync_interval_sec"], found["replicas"]) == ("interval", 120, 3)
    assert found["acknowledged_means"].startswith("a majority of its 3 replicas has given it to the operating system")
    assert "a power cut of a majority at once" in found["acknowledged_means"]
    assert [server["sync"] for server in found["servers"]] == ["always", "always", "interval", "interval", "always"]
    assert said(streams, *(told(f"n{n}") for n in range(1, 5)))["sync"] == "always"


@pytest.mark.parametrize(
    ("servers", "troubles", "why"),
    [
        ((), (), "how n1, n2, n3 writes to its disk"),
        ((told("n1"), told("n2")), (), "how n3 writes to its disk"),
        ((told("n1"), told("n2")), ("http://n3/varz does not answer: x",), "http://n3/varz does not answer: x"),
        ((told("n1", id="other"), told("n2"), told("n3")), (), "http://n1/varz belongs to another NATS"),
    ],
)
def test_what_was_not_said_is_unknown(servers: tuple[Server, ...], troubles: tuple[str, ...], why: str) -> None:
    found = said([kept("A", "n1", "n2", "n3", replicas=3)], *servers, troubles=troubles)
    assert (found["sync"], found["sync_interval_sec"], found["unknown"]) == ("unknown", None, why)
    assert found["acknowledged_means"].startswith("unknown: ")
    assert "PYOCO_NATS_MONITOR_URL" in found["hint"]


def test_streams_that_are_kept_less_safely_are_named() -> None:
    streams = [
        kept("A", "n1", replicas=1), kept("B", "n1", replicas=3), kept("C", "n1", replicas=3, memory=True),
        kept("D", "n1", replicas=3, later=True),
    ]  # fmt: skip
    found = said(streams, told("n1"), wanted=3)
    assert {weak["stream"]: weak["reason"].split(" ", 4)[0] for weak in found["weaker_streams"]} == {
        "A": "1", "C": "it", "D": "it",
    }  # fmt: skip
    assert found["weaker_streams"][0]["reason"] == "1 of 3 replicas (PYOCO_NATS_REPLICAS)"
    assert found["replicas"] == 1
    assert found["acknowledged_means"].endswith("; some streams are kept less safely")
