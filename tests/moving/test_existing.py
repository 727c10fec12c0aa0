"""That the existing system is what it should be."""

from pathlib import Path

import pytest

from .existing import Existing

pytestmark = pytest.mark.moving


def test_it_is_the_real_one(existing: Existing, tmp_path: Path) -> None:
    asked = "import json; from importlib.metadata import version; print(json.dumps(version('pyoco-server')))"
    assert existing.python(asked, folder=tmp_path) == "0.5.1"
