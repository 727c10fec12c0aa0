"""The worker's part of a log: what comes out of the pipes, what of it is kept, stored in what order, and shown."""

import asyncio
import os
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.runlog import LiveLines, LogChunk, LogStream
from pyoco_server.store.logs import LogStore
from pyoco_server.worker.child.output import outputpipes
from pyoco_server.worker.child.output.frames import LINE_COST, Form, Frame, Kind, encode
from pyoco_server.worker.child.output.outputpipes import OutputPipes
from pyoco_server.worker.logs import liveview, runlog
from pyoco_server.worker.logs.logtail import Printed
from pyoco_server.worker.logs.runlog import NoRunLog, RunLog

pytestmark = pytest.mark.anyio
DEADLINE = 20.0


class Store(LogStore):
    """Keeps chunks in memory; away while it is told so."""

    def __init__(self) -> None:
        self.chunks: list[LogChunk] = []
        self.shown: list[list[str]] = []
        self.away = False

    async def publish(self, run_id: str, chunk: LogChunk, message_id: str) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.chunks.append(chunk)

    async def show(self, run_id: str, chunk: LogChunk) -> None:
        assert chunk.live is not None and not chunk.lines
        self.shown.append(texts(chunk.live))

    @property
    def lines(self) -> list[str]:
        return [line.text for chunk in self.chunks for line in chunk.lines]

    @property
    def stored_live(self) -> list[list[str]]:
        return [texts(chunk.live) for chunk in self.chunks if chunk.live is not None]


def texts(live: LiveLines) -> list[str]:
    return [line.text for line in live.lines]


def line(text: str, kind: Kind = Kind.STDOUT, key: bytes = b"") -> Frame:
    return Frame(kind, "t", 1.0, text.encode(), key)


def state(text: str, key: bytes = b"1.1") -> Frame:
    return line(text, Kind.STDERR_STATE, key)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown is shown without a wait."""
    monkeypatch.setattr(liveview, "FIRST_SEC", 0.0)
    monkeypatch.setattr(liveview, "SHOW_SEC", 0.01)


async def test_lines_share_chunks_and_keep_their_order() -> None:
    store = Store()
    log = RunLog(store, "r", 2, 10_000_000)
    for number in range(5000):
        log.take_frame(line(f"{number}"))
    assert await log.finish(5)
    assert store.lines == [str(number) for number in range(5000)]
    assert [chunk.number for chunk in store.chunks] == list(range(1, len(store.chunks) + 1))
    assert 1 < len(store.chunks) < 10 and {chunk.attempt for chunk in store.chunks} == {2}


async def test_the_end_of_a_log_waits_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1000)
    log.take_frame(line("x" * 100))
    await until(lambda: len(store.lines) == 1)
    monkeypatch.setattr(runlog, "CHUNK_SEC", 60)
    assert await log.finish(10)


async def test_a_silent_run_costs_nothing() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1000)
    assert await log.finish(5) and store.chunks == []


async def test_a_log_up_to_its_limit_is_whole_and_of_a_longer_one_the_middle_is_cut() -> None:
    store, longer = Store(), Store()
    log = RunLog(store, "r", 1, 1000)
    for number in range(9):
        log.take(Printed(1.0, "t", LogStream.STDERR, b"%052d" % number), Form.LINE)
    await log.close(5)
    assert store.lines == [f"{number:052}" for number in range(9)]
    log = RunLog(longer, "r", 1, 1000)
    for number in range(100):
        log.take(Printed(1.0, "t", LogStream.STDERR, b"%052d" % number), Form.LINE)
    await log.close(5)
    cut = "91 lines with 4732 bytes cut here: this log has reached its limit of 1000 bytes (PYOCO_RUN_LOG_MAX_BYTES)"
    assert longer.lines == [
        *(f"{number:052}" for number in range(4)), cut, *(f"{number:052}" for number in range(95, 100)),
    ]  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), min_size=1, max_size=20)),
    st.integers(100, 3000),
)
async def test_what_is_kept_is_a_beginning_and_an_end_and_the_rest_is_counted(
    blocks: list[list[bytes]], limit: int
) -> None:
    store = Store()
    log = RunLog(store, "r", 1, limit)
    for block in blocks:
        log.take(Printed(1.0, None, LogStream.STDOUT, b"\n".join(block), len(block)), Form.LINE)
    await log.close(5)
    printed = [text.decode("utf-8", "replace") for block in blocks for text in block]
    found = [line for chunk in store.chunks for line in chunk.lines]
    places = [place for place, line in enumerate(found) if line.stream is LogStream.NOTICE]
    if not places:
        assert [line.text for line in found] == printed
        return
    [place] = places
    first, last = [line.text for line in found[:place]], [line.text for line in found[place + 1 :]]
    assert first == printed[: len(first)] and last == printed[len(printed) - len(last) :]
    words = found[place].text.split()
    assert int(words[0]) == len(printed) - len(first) - len(last)
    sizes = [len(text) for block in blocks for text in block]
    assert int(words[3]) == sum(sizes[len(first) : len(sizes) - len(last)])
    cost = sum(sizes[: len(first)] + sizes[len(sizes) - len(last) :]) + LINE_COST * (len(first) + len(last))
    assert cost <= limit
    if limit >= 20 * (LINE_COST + 30):  # a block is not cut at its very place
        assert last and cost >= limit // 4


async def test_while_nats_is_away_lines_wait_and_all_that_finds_room_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "BUFFER_BYTES", 10 * 49)
    monkeypatch.setattr(runlog, "_FULL_BYTES", 5 * 49)
    monkeypatch.setattr(runlog, "TAIL_BYTES", 5 * 49)
    store = Store()
    store.away = True
    log = RunLog(store, "r", 1, 1_000_000)
    for number in range(10):
        log.take_frame(line(str(number)))
    assert log.is_full
    for letter in "abcdefg":
        log.take_frame(line(letter))
    assert not await log.finish(0.1)
    store.away = False
    assert await log.finish(5)
    gap = "2 lines with 2 bytes cut here: NATS took no more of them for too long"
    assert store.lines == [*map(str, range(10)), gap, *"cdefg"]


async def test_after_an_absence_of_nats_lines_are_stored_as_they_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "BUFFER_BYTES", 10 * 49)
    store = Store()
    store.away = True
    log = RunLog(store, "r", 1, 1_000_000)
    for number in range(100):
        log.take_frame(line(str(number)))
    assert log.is_spent
    store.away = False
    await until(lambda: len(store.lines) == 100)
    assert not log.is_spent
    log.take_frame(line("100"))
    await until(lambda: len(store.lines) == 101)
    assert store.lines == [str(number) for number in range(101)]
    await log.close(5)


async def test_frames_of_user_code_cannot_fill_the_log_with_notices_nor_the_worker_with_states() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1_000_000)
    for _ in range(10_000):
        log.take_frame(line("1 1", Kind.LOST))
    log.take_frame(line("many", Kind.LOST))
    await log.finish(0)
    await until(lambda: len(store.lines) == runlog._MOST_NOTICES)
    log = RunLog(store := Store(), "r", 1, 1000)
    for number in range(10_000):
        log.take_frame(state("x" * 1000, b"%d" % number))
    assert len(log._live._states) == liveview._MOST_OPEN
    await log.close(5)
    assert len(store.lines) <= 2


@pytest.mark.usefixtures("quick")
async def test_of_a_line_that_is_rewritten_the_last_state_is_stored_and_the_others_are_shown() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1_000_000)
    for number in range(1000):
        log.take_frame(state(f"step {number}"))
        log.take_frame(state(f"other {number}", b"2.1"))
    await until(lambda: store.shown[-1:] == [["step 999", "other 999"]])
    log.take_frame(line("step 1000", Kind.STDERR, b"1.1"))
    await until(lambda: store.lines == ["step 1000"])
    assert store.stored_live == [["other 999"]]  # in one message, so that no reader sees a line twice
    await until(lambda: store.shown[-1] == ["other 999"])
    log.take_frame(state("", b"2.1"))
    await until(lambda: store.shown[-1] == [])
    log.take_frame(state("last words"))
    await until(lambda: store.shown[-1] == ["last words"])
    await log.close(5)
    assert store.lines == ["step 1000", "last words"] and store.stored_live[-1] == []


async def test_what_is_finished_soon_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    log = RunLog(store, "r", 1, 1_000_000)
    log.take_frame(state("step 1"))
    log.take_frame(line("step 2", Kind.STDERR, b"1.1"))
    await log.close(5)
    assert (store.shown, store.stored_live, store.lines) == ([], [], ["step 2"])


@pytest.mark.usefixtures("quick")
async def test_a_state_is_stored_now_and_then_as_long_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveview, "_STORE_SEC", (0.02, 0.02))
    store = Store()
    log = RunLog(store, "r", 1, 16 * 500)
    for number in range(100):
        log.take_frame(state(f"{number:050}"))
        await asyncio.sleep(0.01)
    await log.close(5)
    kept = [found for found in store.stored_live if found]
    assert 2 <= len(kept) <= 5  # of 98 bytes each
    assert store.stored_live[-1] == [] and store.lines == [f"{99:050}"]


@pytest.mark.usefixtures("quick")
async def test_of_a_log_that_is_full_the_last_lines_are_shown() -> None:
    store = Store()
    log = RunLog(store, "r", 1, 200_000)
    block = b"\n".join(b"block %d" % number for number in range(5000))
    log.take(Printed(1.0, None, LogStream.STDOUT, block, 5000), Form.LINE)
    for number in range(5):
        log.take_frame(line(f"line {number}"))
    log.take_frame(state("step"))
    await until(lambda: bool(store.shown))
    notice, *last = store.shown[-1]
    assert "PYOCO_RUN_LOG_MAX_BYTES is 200000" in notice
    assert last == [*(f"block {n}" for n in range(4985, 5000)), *(f"line {n}" for n in range(5)), "step"]
    await log.close(5)
    assert store.lines[-2:] == ["line 4", "step"]
    assert not any(text.startswith("lines are left out") for text in store.lines)


async def printed_by(*writes: tuple[str, bytes], limit: int = 1_000_000) -> list[tuple[str | None, str, bool]]:
    """Write to the pipes of a child; the lines of its log are the answer."""
    store = Store()
    pipes = OutputPipes(NoRunLog())
    ends = {"frames": os.dup(pipes.frames_end), "out": os.dup(pipes.stdout_end), "err": os.dup(pipes.stderr_end)}
    pipes.start()
    log = RunLog(store, "r", 1, limit)
    pipes.attach(log)
    for where, data in writes:
        os.write(ends[where], data)
        if where != "frames":  # as a child does before it tells of a task's end
            await until(lambda end=ends[where]: not outputpipes._waiting(end))  # type: ignore[misc]
    pipes.attach(NoRunLog())
    await log.close(5)
    for end in ends.values():
        os.close(end)
    pipes.close()
    return [(line.task, line.text, line.continued) for chunk in store.chunks for line in chunk.lines]


async def test_pipes_give_everything_printed_before_in_order_and_to_whom_it_belongs() -> None:
    found = await printed_by(
        ("frames", encode(Kind.TASK_STARTED, "a", 1.0, b"")),
        ("out", b"from C\r\nno end"),
        ("frames", b"garbage\n" + encode(Kind.STDOUT, "a", 1.0, b"from Python")),
    )
    assert sorted(found) == [("a", "from C", False), ("a", "from Python", False), ("a", "no end", False)]


async def test_a_progress_bar_of_a_subprocess_leaves_its_last_state_to_the_task_that_ran() -> None:
    found = await printed_by(
        ("frames", encode(Kind.TASK_STARTED, "a", 1.0, b"")),
        *(("err", b"\rraw %d" % number) for number in range(20)),
        ("frames", encode(Kind.TASK_ENDED, "a", 1.0, b"") + encode(Kind.TASK_STARTED, "b", 1.0, b"")),
        ("err", b"b's line\n50 %\r      \r"),
        ("frames", encode(Kind.TASK_ENDED, "b", 1.0, b"")),
    )
    assert found == [("a", "raw 19", False), ("b", "b's line", False)]


async def test_what_subprocesses_print_beyond_the_limit_is_cut_in_the_middle() -> None:
    writes = [("out", b"".join(b"line %d\n" % number for number in range(first, first + 500)) + b"\rbar\r")
              for first in range(0, 20_000, 500)]  # fmt: skip
    found = [text for _, text, _ in await printed_by(*writes, limit=20_000)]
    assert found[0] == "line 0" and found[-2:] == ["line 19999", "bar"]
    [cut] = [place for place, text in enumerate(found) if "cut here" in text]
    lines = [text for text in found if text.startswith("line ")]
    assert int(found[cut].split()[0]) == 20_000 - len(lines)
    assert len(lines) > 150 and sum(len(text) + LINE_COST for text in lines) <= 20_000


async def test_full_pipes_are_left_alone_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputpipes, "_FULL_SEC", 0.2)
    store = Store()
    store.away = True
    monkeypatch.setattr(runlog, "BUFFER_BYTES", 200_000)
    monkeypatch.setattr(runlog, "TAIL_BYTES", 200_000)
    monkeypatch.setattr(runlog, "_FULL_BYTES", 100_000)
    log = RunLog(store, "r", 1, 100_000_000)
    pipes = OutputPipes(log)
    out = os.dup(pipes.stdout_end)
    pipes.start()
    loop = asyncio.get_running_loop()
    data = (b"x" * 99 + b"\n") * 20_000
    await asyncio.wait_for(loop.run_in_executor(None, lambda: [os.write(out, data)]), 20)  # a subprocess never blocks
    store.away = False
    os.close(out)
    pipes.drain()
    await log.close(5)
    assert any("cut here: NATS took no more" in text for text in store.lines)
    assert len(store.lines) < 6000
    pipes.close()
