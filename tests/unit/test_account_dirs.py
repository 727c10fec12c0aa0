"""Streams change their places when keys are turned on or off, and none is ever lost."""

import itertools
from pathlib import Path

import pytest

from pyoco_server.embedded import account_dirs
from pyoco_server.embedded.account_dirs import arrange, has_accounts
from pyoco_server.errors import CommandFailed

KEYS = "KV_pyoco_auth"
OPEN = {"$G/PYOCO_WORK", "$G/KV_pyoco_runs", f"$G/{KEYS}"}
GUARDED = {"APP/PYOCO_WORK", "APP/KV_pyoco_runs", f"KEYS/{KEYS}"}


def lay(jetstream: Path, places: set[str]) -> None:
    for place in places:
        account, stream = place.split("/")
        (jetstream / account / "streams" / stream / "msgs").mkdir(parents=True)
        (jetstream / account / "streams" / stream / "msgs" / "1.blk").write_text(stream)


def places(jetstream: Path) -> set[str]:
    found = {
        f"{path.parts[-5]}/{path.parts[-3]}": path.read_text() for path in jetstream.glob("*/streams/*/msgs/1.blk")
    }
    assert all(place.endswith(f"/{text}") for place, text in found.items())
    return set(found)


def test_there_and_back(tmp_path: Path) -> None:
    lay(tmp_path, OPEN)
    assert not has_accounts(tmp_path)
    assert arrange(tmp_path, None) == []
    assert sorted(arrange(tmp_path, KEYS)) == sorted(place.split("/")[1] for place in OPEN)
    assert places(tmp_path) == GUARDED and has_accounts(tmp_path)
    assert arrange(tmp_path, KEYS) == []
    arrange(tmp_path, None)
    assert places(tmp_path) == OPEN and not has_accounts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["$G"]  # of others nats-server would say that it is ill


def test_an_empty_store_stays_empty(tmp_path: Path) -> None:
    for keys in (None, KEYS):
        assert arrange(tmp_path / "jetstream", keys) == []
    assert not (tmp_path / "jetstream").exists()


def test_another_name_for_the_keys(tmp_path: Path) -> None:
    lay(tmp_path, GUARDED | {"APP/KV_other"})
    arrange(tmp_path, "KV_other")
    # The old keys stay where nobody but the keys' users reaches them.
    assert places(tmp_path) == GUARDED | {"KEYS/KV_other"}


@pytest.mark.parametrize(("before", "keys", "after"), [(OPEN, KEYS, GUARDED), (GUARDED, None, OPEN)])
@pytest.mark.parametrize("moves", range(3))
def test_a_crash_between_two_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: set[str], keys: str | None, after: set[str], moves: int
) -> None:
    lay(tmp_path, before)
    calls = itertools.count()

    class Crash(BaseException):
        pass

    def sync(_: Path) -> None:
        if next(calls) == 2 * moves:
            raise Crash

    monkeypatch.setattr(account_dirs, "_sync", sync)
    with pytest.raises(Crash):
        arrange(tmp_path, keys)
    assert {place.split("/")[1] for place in places(tmp_path)} == {place.split("/")[1] for place in before}
    arrange(tmp_path, keys)
    assert places(tmp_path) == after


@pytest.mark.parametrize("second", ["$G/PYOCO_WORK", "KEYS/PYOCO_WORK", f"$G/{KEYS}", f"APP/{KEYS}"])
@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_stream_in_two_places_is_left_alone(tmp_path: Path, second: str, keys: str | None) -> None:
    lay(tmp_path, GUARDED | {second})
    if second == "KEYS/PYOCO_WORK" and keys:
        assert arrange(tmp_path, keys) == []  # both are where they belong, and nobody's way leads to the second
        return
    with pytest.raises(CommandFailed, match="lies in two places") as refused:
        arrange(tmp_path, keys)
    assert second.split("/")[1] in refused.value.message and "start again" in refused.value.hint
    assert places(tmp_path) == GUARDED | {second}


def test_what_cannot_be_moved_is_told(tmp_path: Path) -> None:
    lay(tmp_path, OPEN)
    (tmp_path / "APP").write_text("no directory")
    with pytest.raises(CommandFailed, match=r"APP"):
        arrange(tmp_path, KEYS)
    assert places(tmp_path) == OPEN
