"""A process that checks texts: what the gateway starts, and what that does."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import traceback
from typing import Any, BinaryIO

import psutil
import structlog

from pyoco_server.errors import CheckUnavailable, InvalidFlow, PyocoError
from pyoco_server.gateway.submitting.checking.frames import LENGTHS, MOST_HEAD, Frame, error_in, told_error
from pyoco_server.process.memory import settle_memory

log = structlog.get_logger(__name__)

CPU_SEC = 5
"""Processor time for one text, many times what the largest one takes."""
_NICENESS = 3
"""Enough that the gateway's loop goes first. The session stays the gateway's: Linux compares niceness within one."""
_MEMORY_BYTES = 2 << 30
_GROWN_BYTES = 256 << 20
"""A process that has had so much is replaced."""
_END_SEC = 5.0
_BOOT = """\
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pyoco_server.gateway.submitting.checking.process import main
main()
"""


class CheckerProcess:
    """A process that does one thing at a time.

    It is not forked from the gateway, which has threads, and gets none of its environment: secrets stand there.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[int] | None = None
        self.grown = False
        """Whether it has taken more memory than it should keep."""

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None and self._runs else None

    @property
    def _runs(self) -> bool:
        return self._ending is not None and not self._ending.done()

    async def ask(self, asked: Frame, most_bytes: int) -> Frame:
        """Let it do something; it is started if it does not run. Cancelled, the process is killed.

        Args:
            asked: What to do.
            most_bytes: Largest answer that is taken.

        Raises:
            PyocoError: what is wrong with the text.
            CheckUnavailable: the process cannot be started, or it ended.
        """
        try:
            process = await self._start()
            answer = await _exchange(process, Frame({**asked.head, "cpu_sec": CPU_SEC}, asked.body), most_bytes)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise await self._why(error) from None
        except BaseException:
            await self.kill()  # it is in the middle of something
            raise
        self.grown = answer.head.pop("rss", 0) > _GROWN_BYTES
        if "crash" in answer.head:
            log.error("a text could not be checked", exc_traceback=answer.head["crash"])
            raise CheckUnavailable("the check of this text failed", hint="The server's log has more.")
        if (found := error_in(answer.head)) is not None:
            raise found
        return answer

    async def end(self) -> None:
        """Let it end, which it does when nothing can come any more."""
        if self._process is not None and self._process.stdin is not None and self._ending is not None:
            self._process.stdin.close()
            await asyncio.wait({self._ending}, timeout=_END_SEC)
        await self.kill()

    async def kill(self) -> int | None:
        """Kill it, and give how it ended."""
        process, ending, self._process, self._ending = self._process, self._ending, None, None
        if process is None or ending is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait({ending}, timeout=_END_SEC)
        return process.returncode

    async def _start(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._runs:
            return self._process
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _BOOT, json.dumps(_import_path()),
            env=kept, cwd="/", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._ending = asyncio.create_task(self._process.wait(), name="checker-end")
        self.grown = False
        return self._process

    async def _why(self, error: Exception) -> PyocoError:
        """Return why there is no answer."""
        ending = self._ending
        if self._process is None or ending is None:
            return CheckUnavailable(f"no process can be started to check this: {error}")
        await asyncio.wait({ending}, timeout=_END_SEC)
        code = await self.kill()
        if code == -signal.SIGPROF:
            return InvalidFlow(
                f"checking it takes more than {CPU_SEC} s of processor time", hint="Split it into several flows."
            )
        log.warning("a process that checks texts ended", code=code)
        return CheckUnavailable(f"the process that checked this ended ({_ended(code)})")


async def _exchange(process: asyncio.subprocess.Process, asked: Frame, most_bytes: int) -> Frame:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes
    process.stdin.write(asked.encode())
    await process.stdin.drain()
    head, body = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
    if head > MOST_HEAD or body > most_bytes:
        raise CheckUnavailable(f"the answer of a check has {head} + {body} bytes")
    return Frame(
        json.loads(await process.stdout.readexactly(head)),
        await process.stdout.readexactly(body),
    )


def _import_path() -> list[str]:
    return [os.path.abspath(path) for path in sys.path]  # noqa: PTH100 - links stay links


def _ended(code: int | None) -> str:
    if code is None:
        return "it does not obey"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def main() -> None:
    """Answer what comes on standard input until nothing comes any more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not stand between
    from pyoco_server.gateway.submitting.checking.work import Bench  # noqa: PLC0415 - the gateway's side may not need it

    bench = Bench()
    settle_memory()
    os.nice(_NICENESS)
    own = psutil.Process()
    while (asked := _read(sys.stdin.buffer)) is not None:
        # At its end the process ends, also in the middle of C code, and also if the gateway is gone.
        signal.setitimer(signal.ITIMER_PROF, asked.head["cpu_sec"])
        answer = _answer(bench.do, asked)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer.head["rss"] = own.memory_info().rss  # not the most it had: Linux counts the gateway's own into that
        answers.write(answer.encode())
        answers.flush()


def _answer(work: Any, asked: Frame) -> Frame:
    try:
        found: Frame = work(asked)
    except PyocoError as error:
        return Frame(told_error(error))
    except Exception:  # noqa: BLE001 - the gateway logs it
        return Frame({"crash": traceback.format_exc()[-8000:]})
    return found


def _read(source: BinaryIO) -> Frame | None:
    lengths = source.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, body = LENGTHS.unpack(lengths)
    return Frame(json.loads(source.read(head)), source.read(body))
