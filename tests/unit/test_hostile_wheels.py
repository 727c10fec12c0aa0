"""Wheels that somebody made to do harm are refused with a sentence that says why, or do none."""

import asyncio
import os
import resource
from pathlib import Path

import psutil
import pytest

from pyoco_server.errors import InvalidInput
from pyoco_server.model.wheels.file_name import parse_wheel_name
from pyoco_server.wheelfile import inspection
from pyoco_server.wheelfile.content import check_wheel
from pyoco_server.wheelfile.inspection import Finding, NotInspected, Question, inspect
from tests.hostile_wheels import HOSTILE, MEBI, Hostile, zipped
from tests.wheels import make_wheel, wheel_members

pytestmark = pytest.mark.slow

LIMIT = 512 << 20


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in HOSTILE}) == len(HOSTILE) >= 85


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_hostile(case: Hostile, tmp_path: Path) -> None:
    path = case.write(tmp_path, "h")
    with path.open("rb") as file:
        if case.said is None:
            check_wheel(file, parse_wheel_name(path.name), LIMIT)
            return
        with pytest.raises(InvalidInput) as caught:
            check_wheel(file, parse_wheel_name(path.name), LIMIT)
    assert case.said in caught.value.message
    assert caught.value.message.startswith("the wheel is refused: ")
    assert len(caught.value.message) < 1000


def look(*questions: Question, timeout: float = 30.0) -> list[Finding]:
    return asyncio.run(inspect(questions, max_bytes=LIMIT, timeout=timeout))


def test_one_wheel_hides_no_other(tmp_path: Path) -> None:
    names = ["one", "bad", "two", "gone"]
    paths = [make_wheel(tmp_path, name, "1") for name in names]
    paths[1].write_bytes(b"nothing")
    paths[3].unlink()
    found = look(*(Question(path.name, path) for path in paths))
    assert [finding.reason is None for finding in found] == [True, False, True, False]
    assert "no zip archive" in str(found[1].reason)
    assert "cannot be read" in str(found[3].reason)
    assert found[0].claims == ["one"]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("import os; os._exit(9)", "takes the process that does it down"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "takes the process that does it down"),
        ("import time; time.sleep(60)", "takes longer than 1 s"),
        ("bytearray(1 << 40)", "bytes of memory"),
        ("raise RuntimeError('nobody thought of this')", "nobody thought of this"),
    ],
)
def test_a_wheel_that_takes_the_process_with_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, said: str
) -> None:
    """A stand-in for what nobody thought of: the look itself fails for one wheel."""
    code = inspection._INSPECT.replace(
        "main()",
        "import pyoco_server.wheelfile.inspector as i\nreal = i._look\n"
        f"def look(opened, wheel, limit):\n    if 'bad' in wheel['name']:\n        {trouble}\n"
        "    return real(opened, wheel, limit)\ni._look = look\nmain()\n",
    )
    monkeypatch.setattr(inspection, "_INSPECT", code)
    paths = [make_wheel(tmp_path, name, "1") for name in ("one", "bad", "two")]
    found = look(*(Question(path.name, path) for path in paths), timeout=1 if "sleep" in trouble else 30)
    assert said in str(found[1].reason)
    assert [found[0].reason, found[2].reason] == [None, None]


def test_where_no_process_begins_no_wheel_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_INSPECT", "raise SystemExit(3)")
    path = make_wheel(tmp_path, "one", "1")
    with pytest.raises(NotInspected, match="before it began"):
        look(Question(path.name, path))


def test_the_look_ends_with_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_INSPECT", "import time; time.sleep(60)")
    path = make_wheel(tmp_path, "one", "1")

    async def stopped() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        await inspect([Question(path.name, path)], max_bytes=LIMIT, timeout=60, stop=stop)

    with pytest.raises(NotInspected, match="stopping"):
        asyncio.run(stopped())
    assert not [child for child in psutil.Process().children() if "sleep" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_the_largest_metadata_fit_into_little_memory(tmp_path: Path) -> None:
    """All bounds at once: what is not refused is looked into with some 200 MB, and none of it in the asking process."""
    info = "h-1.dist-info"
    wheel = {
        **wheel_members("h", "1"),
        f"{info}/METADATA": "Name: h\nVersion: 1\n" + "X: y\n" * 9000 + "\n" + "z" * (2_000_000 - 60_000),
        f"{info}/entry_points.txt": "[pyoco.tasks]\n" + f"{'n' * 150} = {'m' * 40}:f\n" * 4900,
        f"{info}/licenses/LICENSE": os.urandom(1000) * 15_000,
        f"{info}/RECORD": "",
        **{f"h/{number:050d}": "" for number in range(40_000)},
        "h/noise": os.urandom(MEBI),
    }
    path = tmp_path / "h-1-py3-none-any.whl"
    path.write_bytes(zipped(wheel))
    own = psutil.Process().memory_info().rss
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10  # Linux counts our own into it, too
    [found] = look(Question(path.name, path))
    assert found.reason is None
    assert psutil.Process().memory_info().rss - own < 20 << 20
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    print(f"\nlargest process that looked into it: {largest_child >> 20} MiB")
    assert largest_child < max(400 << 20, before + 1, own + (20 << 20))
