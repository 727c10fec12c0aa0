"""Both systems at the same runs: none lost, no wrong result, none run twice without an attempt being counted."""

from pathlib import Path

import pytest

from .existing import Existing
from .mixed_load import both, our_worker, run_load

pytestmark = pytest.mark.moving


def test_both_systems_share_the_work(existing: Existing, tmp_path: Path) -> None:
    with both(existing, tmp_path) as load:
        our_worker(load, "ours")
        load.add_of_their_client(existing, 10)
        told = run_load(load, existing, 6.0, pause=0.02)
    assert not told["broken"], told
    assert told["runs"] > 30
