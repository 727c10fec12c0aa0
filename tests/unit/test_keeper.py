"""A part that dies is started again, ever later; one that refuses to run is not."""

import asyncio
import contextlib
import shlex
import time
from typing import Any

import pytest

from pyoco_server.embedded import keeper as module
from pyoco_server.embedded.keeper import Keeper
from pyoco_server.errors import CommandFailed
from pyoco_server.model.parts import Part, Parts, exit_text

pytestmark = pytest.mark.anyio

LASTING = "sleep 60"


class Starts:
    """Starts one shell command after the other; the last one again and again."""

    def __init__(self, *commands: str) -> None:
        self.commands = list(commands)
        self.begun = 0

    async def __call__(self) -> asyncio.subprocess.Process:
        command = self.commands[min(self.begun, len(self.commands) - 1)]
        self.begun += 1
        if command == "fail":
            raise CommandFailed("the port is taken")
        return await asyncio.create_subprocess_exec(*shlex.split(command))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that are made, without making them."""
    made: list[float] = []

    async def first_event(timeout: float, *events: asyncio.Event) -> None:
        made.append(timeout)
        await asyncio.sleep(0)

    monkeypatch.setattr(module, "first_event", first_event)
    return made


async def kept(starts: Starts, **options: Any) -> tuple[Keeper, Part, "asyncio.Task[None]"]:
    part = Parts().add("worker w")
    keeper = Keeper(part, starts, **options)
    await keeper.begin()
    return keeper, part, asyncio.create_task(keeper.keep())


async def until_begun(starts: Starts, count: int, task: "asyncio.Task[None]") -> None:
    deadline = time.monotonic() + 20
    while starts.begun < count:
        assert not task.done() and time.monotonic() < deadline, task
        await asyncio.sleep(0.005)


async def stop(keeper: Keeper, task: "asyncio.Task[None]") -> None:
    keeper.stop()
    deadline = time.monotonic() + 10
    while not task.done() and time.monotonic() < deadline:
        if isinstance(keeper.running, asyncio.subprocess.Process):  # it may only be starting
            with contextlib.suppress(ProcessLookupError):
                keeper.running.kill()
        await asyncio.wait({task}, timeout=0.02)
    await asyncio.wait_for(task, 1)


DEATHS = ["sh -c 'kill -9 $$'", "sh -c 'kill -11 $$'", "sh -c 'exit 70'", "sh -c 'exit 7'"]


@pytest.mark.parametrize("death", DEATHS)
async def test_it_is_started_again_ever_later(pauses: list[float], death: str) -> None:
    starts = Starts(*[death] * 8, LASTING)
    keeper, part, task = await kept(starts, may_end=True, may_refuse=True)
    await until_begun(starts, 9, task)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert (part.deaths, part.pid is not None, part.next_start) == (8, True, None)
    assert part.last_exit in ("killed by SIGKILL", "killed by SIGSEGV", "exit code 70", "exit code 7")
    await stop(keeper, task)
    assert part.deaths == 8  # that it was stopped is no death


async def test_a_long_life_is_forgiven(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WELL_SEC", 0.3)
    starts = Starts(DEATHS[0], DEATHS[0], "sh -c 'sleep 0.4; kill -9 $$'", LASTING)
    keeper, _, task = await kept(starts)
    await until_begun(starts, 4, task)
    assert pauses == [0.5, 1, 0.5]
    await stop(keeper, task)


@pytest.mark.parametrize("code", [1, 2, 4])
async def test_who_refuses_at_once_is_given_up(pauses: list[float], code: int) -> None:
    starts = Starts(f"sh -c 'exit {code}'")
    _, _, task = await kept(starts, may_end=True, may_refuse=True)
    with pytest.raises(CommandFailed, match=rf"worker w refuses to run \(exit code {code}\)"):
        await asyncio.wait_for(task, 10)
    assert (starts.begun, pauses) == (1, [])


async def test_who_has_run_may_say_what_he_likes(pauses: list[float]) -> None:
    starts = Starts(DEATHS[0], "sh -c 'exit 1'", "sh -c 'exit 4'", LASTING)
    keeper, part, task = await kept(starts, may_refuse=True)
    await until_begun(starts, 4, task)
    assert part.deaths == 3
    await stop(keeper, task)


async def test_who_ends_in_order_stays_ended(pauses: list[float]) -> None:
    starts = Starts("true")
    keeper, part, task = await kept(starts, may_end=True)
    await asyncio.wait_for(task, 10)
    assert (starts.begun, part.deaths, part.pid, keeper.running) == (1, 0, None, None)


async def test_a_start_that_fails_is_tried_again(pauses: list[float]) -> None:
    starts = Starts(DEATHS[0], "fail", "fail", LASTING)
    keeper, part, task = await kept(starts)
    await until_begun(starts, 4, task)
    assert (pauses, part.deaths) == ([0.5, 1, 2], 1)
    await stop(keeper, task)


async def test_nothing_is_started_after_a_stop() -> None:
    starts = Starts(DEATHS[0], LASTING)
    keeper, part, task = await kept(starts)
    while not part.deaths:
        await asyncio.sleep(0.005)
    keeper.stop()  # in its pause
    await asyncio.wait_for(task, 10)
    assert starts.begun == 1


def test_what_is_told() -> None:
    parts = Parts()
    part = parts.add("nats-server")
    part.runs(7)
    assert parts.warnings() == []
    part.died(-9, 0.5)
    [down] = parts.warnings()
    assert down == "the nats-server has died (killed by SIGKILL; deaths: 1), and is started again"
    part.runs(8)
    [up] = parts.warnings()
    assert up.endswith("and runs again")
    [told] = parts.told()
    assert (told["part"], told["running"], told["deaths"], told["last_exit"]) == (
        "nats-server", True, 1, "killed by SIGKILL",
    )  # fmt: skip
    assert [exit_text(code) for code in (0, 3, -15, -64, -99)][:3] == [
        "exit code 0",
        "exit code 3",
        "killed by SIGTERM",
    ]
    assert exit_text(-99) == "killed by signal 99"
