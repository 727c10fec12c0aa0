"""What the child's streams make of what tasks print, and what the pipe does when nobody reads."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.model.runlog import LiveLines, LogChunk, LogLine, LogStream
from pyoco_server.worker.child.output import framepipe
from pyoco_server.worker.child.output.frames import MAX_FRAME, MAX_TEXT, Frame, Kind, decode, encode, pieces
from pyoco_server.worker.child.output.screen import Change, Screen
from pyoco_server.worker.child.output.taskoutput import TaskOutput
from pyoco_server.worker.child.output.taskstreams import TaskStream


class Printed:
    """An output whose pipe can be looked at."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.output = TaskOutput(writing)
        self.output.begin()
        self.stdout = TaskStream(self.output, LogStream.STDOUT)
        self.stderr = TaskStream(self.output, LogStream.STDERR)

    def frames(self) -> list[Frame]:
        try:
            data = os.read(self.reading, 1 << 20)
        except BlockingIOError:
            return []
        found = [decode(text) for text in data.split(b"\n")[:-1]]
        assert None not in found
        return [frame for frame in found if frame is not None]

    def lines(self) -> list[tuple[Kind, str | None, str]]:
        return [(frame.kind, frame.task, frame.text.decode()) for frame in self.frames()]


@pytest.fixture
def printed() -> Iterator[Printed]:
    yield Printed()


def test_a_line_is_a_frame_as_soon_as_it_ends(printed: Printed) -> None:
    print("a", end="", file=printed.stdout)
    print("err", file=printed.stderr)
    assert printed.lines() == [(Kind.STDERR, None, "err")]
    print("b\n\nc", file=printed.stdout)
    assert printed.lines() == [(Kind.STDOUT, None, text) for text in ("ab", "", "c")]


def test_an_unfinished_line_is_shown_when_flushed_and_whole_at_the_end(printed: Printed) -> None:
    print("10 %", end="", flush=True, file=printed.stdout)
    [state] = printed.frames()
    assert (state.kind, state.text) == (Kind.STDOUT_STATE, b"10 %")
    print(" done", end="", file=printed.stdout)
    assert printed.frames() == []
    printed.output.end()
    [line] = printed.frames()
    assert (line.kind, line.text, line.key) == (Kind.STDOUT, b"10 % done", state.key)


@pytest.mark.parametrize("update", ["\r{}", "{}\r"])
def test_each_state_of_a_line_is_out_at_once_and_the_line_replaces_them(printed: Printed, update: str) -> None:
    for number in range(3):  # a carriage return flushes, as it does in Python's own stderr
        printed.stderr.write(update.format(number))
    print("over", file=printed.stdout)
    printed.output.end()
    *states, other, line = printed.frames()
    assert [(frame.kind, frame.text) for frame in states] == [
        (Kind.STDERR_STATE, b"%d" % number) for number in range(3)
    ]
    assert (other.kind, other.text, other.key) == (Kind.STDOUT, b"over", b"")
    assert (line.kind, line.text) == (Kind.STDERR, b"2") and {line.key} == {frame.key for frame in states}


def test_each_thread_and_each_process_rewrites_lines_of_its_own(printed: Printed) -> None:
    printed.stderr.write("\rmine")
    thread = threading.Thread(target=lambda: printed.stderr.write("\rthread's"))
    thread.start()
    thread.join(10)
    if (pid := os.fork()) == 0:
        printed.stderr.write("\rfork's")
        os._exit(0)
    os.waitpid(pid, 0)
    frames = printed.frames()
    assert sorted(frame.text for frame in frames) == [b"fork's", b"mine", b"thread's"]
    assert len({frame.key for frame in frames}) == 3


def test_a_signal_in_the_middle_of_a_write_does_no_harm(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Screen.feed
    again: list[str | BaseException] = [" handler", TimeoutError()]

    def interrupted(screen: Screen, data: bytes, *, show: bool = False) -> list[Change]:
        if data == b"x" and again:
            what = again.pop(0)
            if isinstance(what, BaseException):
                raise what
            printed.stdout.write(what)
        return feed(screen, data, show=show)

    monkeypatch.setattr(Screen, "feed", interrupted)
    printed.stdout.write("before ")
    printed.stdout.write("x")
    with pytest.raises(TimeoutError):
        printed.stdout.write("x")
    print("after", file=printed.stdout)
    assert [text for *_, text in printed.lines()] == [" handler", "before x", "after"]


def test_lines_of_one_write_share_frames_of_the_pipe(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(printed.output._pipe, "send", lambda frames, *_: sent.append(frames))
    text = "".join(f"{number}\n" for number in range(1000))
    printed.stdout.write(text)
    assert len(sent) < 20 and max(map(len, sent)) <= MAX_FRAME
    frames = [decode(frame) for frame in b"".join(sent).splitlines()]
    assert [frame.text for frame in frames if frame] == [line.encode() for line in text.splitlines()]


def test_lines_belong_to_the_task_of_their_thread(printed: Printed) -> None:
    turns = threading.Barrier(2)

    def task(name: str) -> None:
        printed.output.announce(name)
        with printed.output.task():
            turns.wait(10)
            for number in range(100):
                print(name, end="", file=printed.stdout)
                print(number, file=printed.stdout)
            turns.wait(10)  # both run for as long as one prints

    threads = [threading.Thread(target=task, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lines = [line for line in printed.lines() if line[0] is Kind.STDOUT]
    for name in "ab":
        assert [text for _, task, text in lines if task == name] == [f"{name}{number}" for number in range(100)]


def test_a_thread_of_the_only_task_prints_for_it(printed: Printed) -> None:
    printed.output.announce("t")
    with printed.output.task():
        thread = threading.Thread(target=lambda: print("x", file=printed.stdout))
        thread.start()
        thread.join(10)
    print("y", file=printed.stdout)
    kinds = [Kind.TASK_STARTED, Kind.STDOUT, Kind.TASK_ENDED, Kind.STDOUT]
    assert [(kind, task) for kind, task, _ in printed.lines()] == list(zip(kinds, ["t", "t", "t", None], strict=True))


def test_surrogates_bytes_and_long_lines(printed: Printed) -> None:
    print("bad \ud800", file=printed.stdout)
    printed.stdout.buffer.write("日本".encode()[:4])
    printed.stdout.buffer.write("日本".encode()[4:] + b"\xff\n")
    frames = printed.frames()
    assert [frame.text for frame in frames] == [b"bad \\ud800", "日本".encode() + b"\xff"]
    print("日" * 3000, file=printed.stdout)
    frames = printed.frames()
    assert "".join(frame.text.decode() for frame in frames) == "日" * 3000
    assert [frame.kind for frame in frames] == [Kind.STDOUT_CONTINUED] * (len(frames) - 1) + [Kind.STDOUT]
    assert len(frames) > 1


def test_the_stream_is_one_for_its_users(printed: Printed) -> None:
    stream = printed.stdout
    assert (stream.encoding, stream.isatty(), stream.writable(), stream.fileno()) == ("utf-8", False, True, 1)
    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"x")  # type: ignore[arg-type]
    stream.writelines(["a\n", "b\n"])
    stream.close()  # the next run prints too
    print("c", file=stream)
    assert [text for *_, text in printed.lines()] == ["a", "b", "c"]


def test_a_worker_that_does_not_read_costs_a_moment_once(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framepipe, "PATIENCE_SEC", 0.05)
    for number in range(200):
        print(f"{number:03}", "x" * 1000, file=printed.stdout)
    kept = printed.lines()
    assert 0 < len(kept) < 200
    print("after", file=printed.stdout)
    after = printed.lines()
    assert [kind for kind, *_ in after] == [Kind.LOST, Kind.STDOUT]
    assert int(after[0][2].split()[0]) == 200 - len(kept)


def test_a_descriptor_that_user_code_took_is_not_written_to(printed: Printed, tmp_path: Path) -> None:
    file = os.open(tmp_path / "users", os.O_CREAT | os.O_RDWR)
    os.dup2(file, printed.output._pipe._descriptor)
    print("lost", file=printed.stdout)
    assert os.fstat(file).st_size == 0


def test_a_forked_process_prints_its_own_lines_only(printed: Printed) -> None:
    print("parent's", end="", file=printed.stdout)
    if (pid := os.fork()) == 0:
        print("child's", file=printed.stdout)
        os._exit(0)
    os.waitpid(pid, 0)
    print(" line", file=printed.stdout)
    assert [text for *_, text in printed.lines()] == ["child's", "parent's line"]


@given(st.binary(max_size=20_000), st.text(max_size=2000), st.sampled_from([b"", b"1.2", b"k" * 64]))
def test_any_line_becomes_whole_frames(data: bytes, task: str, key: bytes) -> None:
    text = data.replace(b"\n", b"")
    parts = list(pieces(text))
    assert b"".join(part for part, _ in parts) == text
    assert [more for _, more in parts] == [True] * (len(parts) - 1) + [False]
    for part, _ in parts:
        frame = encode(Kind.STDOUT, task, 1.5, part, key)
        assert len(part) <= MAX_TEXT and len(frame) <= MAX_FRAME and frame.count(b"\n") == 1
        read = decode(frame[:-1])
        assert read is not None and (read.text, read.time, read.key) == (part, 1.5, key)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"1\x1ft\x1f\x1fsoon\x1fx",
        b"9\x1ft\x1f\x1f1\x1fx",
        b"1\x1ft\x1f\x1fnan\x1fx",
        b"1\x1ft\x1f" + b"k" * 65 + b"\x1f1\x1fx",
    ],
)
def test_what_is_no_frame_is_none(text: bytes) -> None:
    assert decode(text) is None


def test_chunks_keep_their_lines() -> None:
    lines = [LogLine(1.5, "t", LogStream.STDOUT, "a", True), LogLine(2.5, None, LogStream.NOTICE, "b")]
    for live in (None, LiveLines(3.5, []), LiveLines(3.5, lines)):
        assert LogChunk.from_json(LogChunk(2, 7, lines, live).to_json()) == LogChunk(2, 7, lines, live)
    for lines_of_others in (b"[[1]]", b'[[1,2,"stdout","x"]]', b'[[1,null,"stdin","x"]]', b"1"):
        bad = b'{"attempt":1,"number":1,"lines":' + lines_of_others + b"}"
        with pytest.raises(ValueError):
            LogChunk.from_json(bad)
    for live_of_others in (b"1", b"[1]", b'["x",[]]', b"[1,[1]]"):
        with pytest.raises(ValueError):
            LogChunk.from_json(b'{"attempt":1,"number":1,"lines":[],"live":' + live_of_others + b"}")
    with pytest.raises(ValueError):
        LogChunk.from_json(b"[]")
