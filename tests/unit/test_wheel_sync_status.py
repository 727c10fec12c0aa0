"""What a worker's record tells of its wheels."""

from pathlib import Path
from typing import Any

import pytest

from pyoco_server.errors import InvalidInput
from pyoco_server.gateway.index.worker_index import WorkerIndex
from pyoco_server.model.wheels.file_name import read_file_name
from pyoco_server.model.wheels.sync import SHARED_FIELDS, beginning, completed, is_in_trouble, seen_by
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.store.nats.feed import Change
from pyoco_server.worker.wheels.environments import Environment
from pyoco_server.worker.wheels.status import is_news, of_environment

EXISTING = {
    "enabled", "last_result", "last_attempt_at", "last_success_at", "last_synced_at", "last_error", "selected_count",
    "updated_count", "removed_count", "skipped_incompatible_count", "selected_wheels", "updated_wheels",
    "removed_wheels", "skipped_incompatible", "installed_wheels",
}  # fmt: skip


def environment(folder: Path, *names: str) -> Environment:
    wheels = [
        {"package_name": name, "package_version": "1", "wheel_name": f"{name}.whl", "sha256": f"hash of {name}"}
        for name in names
    ]
    return Environment(digest="-".join(names), directory=folder, wheels=wheels, plugins=[], lock=None, fingerprint="")  # type: ignore[arg-type]


def after(before: dict[str, Any], used: Environment | None, outcome: str, began: float) -> dict[str, Any]:
    nuids = {wheel["sha256"]: f"id of {wheel['wheel_name']}" for wheel in used.wheels} if used else {}
    told = of_environment(before, used, outcome=outcome, nuids=nuids, attempted_at=began)
    return {**before, **told}


def test_every_field_of_the_existing_system_is_there_from_the_start() -> None:
    for enabled, result in ((True, "idle"), (False, "disabled")):
        told = beginning(enabled=enabled)
        assert set(told) >= EXISTING
        assert (told["enabled"], told["last_result"]) == (enabled, result)
    assert WorkerRecord(worker_id="w").wheel_sync == beginning(enabled=False)
    assert set(seen_by(beginning(enabled=True), lambda _: False)) == SHARED_FIELDS
    assert completed({"enabled": True, "last_result": "ok", "x": 1}) == {
        **beginning(enabled=True), "last_result": "ok", "x": 1
    }  # fmt: skip


def test_a_round_tells_what_it_brought_and_took_away(tmp_path: Path) -> None:
    first = after(beginning(enabled=True), environment(tmp_path, "a", "b"), "ok", 1.0)
    assert (first["updated_wheels"], first["updated_count"]) == (["a.whl", "b.whl"], 2)
    again = after(first, environment(tmp_path, "a", "b"), "ok", 1.0)  # what is told twice of one round
    assert again["updated_wheels"] == first["updated_wheels"]
    second = after(again, environment(tmp_path, "b", "c"), "partial", 2.0)
    assert (second["updated_wheels"], second["removed_wheels"]) == (["c.whl"], ["a.whl"])
    assert second["installed_wheels"][0] == again["installed_wheels"][1]  # since when it is there stays
    quiet = after(second, environment(tmp_path, "b", "c"), "ok", 3.0)
    assert (quiet["updated_count"], quiet["removed_count"]) == (0, 0)
    assert (is_news(second, first), is_news(after(quiet, None, "ok", 4.0), quiet)) == (True, True)
    assert not is_news(after(quiet, environment(tmp_path, "b", "c"), "ok", 4.0), quiet)


def test_results_are_the_existing_systems_and_outcomes_ours(tmp_path: Path) -> None:
    good = after(beginning(enabled=True), environment(tmp_path, "a"), "ok", 1.0)
    assert (good["last_result"], good["outcome"], is_in_trouble(good)) == ("ok", "ok", False)
    assert good["last_success_at"] == good["last_synced_at"] == good["last_sync_at"]
    for outcome in ("partial", "failed"):
        bad = after(good, environment(tmp_path, "a"), outcome, 2.0)
        assert (bad["last_result"], bad["outcome"], is_in_trouble(bad)) == ("error", outcome, True)
        assert (bad["last_success_at"], bad["last_attempt_at"]) == (good["last_success_at"], 2.0)
        assert is_in_trouble({"last_result": outcome})  # of a worker that tells it the older way


def test_of_one_worker_the_newest_record_counts() -> None:
    index = WorkerIndex(20)
    old, new = (WorkerRecord(worker_id="w", hidden=hidden) for hidden in (False, True))
    index.apply([Change("w", new.to_json(), 2)])
    index.apply([Change("w", old.to_json(), 1)])
    assert index.get("w") == new
    index.apply([Change("w", None, 3)])
    index.apply([Change("w", old.to_json(), 4)])
    assert index.get("w") == old


def test_a_filter_by_a_name_that_no_wheel_has_is_refused() -> None:
    assert (read_file_name(" a-1-py3-none-any.whl "), read_file_name("x.whl"), read_file_name("  ")) == (
        "a-1-py3-none-any.whl", "x.whl", None
    )  # fmt: skip
    for name in ("../x", "x.txt", "a b.whl", "a/b.whl", "x" * 300 + ".whl"):
        with pytest.raises(InvalidInput, match="which no wheel is called"):
            read_file_name(name)
