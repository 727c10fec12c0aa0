"""Tasks written with ``async def``, on pyoco's real engine."""

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyoco.core.models import Flow, RunStatus

from .test_retries import Run, flow_of, task


async def gives(x: int = 1) -> int:
    await asyncio.sleep(0)
    return x


class Callable:
    async def __call__(self, x: int) -> int:
        return await gives(x)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return run


@pytest.mark.parametrize(
    "function",
    [gives, functools.partial(gives, x=5), decorated(gives), Callable(), Callable().__call__, lambda x: gives(x + 0)],
    ids=["async def", "partial", "decorated", "object", "method", "lambda"],
)
def test_a_coroutine_is_run_whatever_made_it(function: Any) -> None:
    run = Run(flow_of(task(function), task(lambda t: t + 1, "after")))
    assert (run.records["t"]["inputs"], run.records["t"]["output"]) == ({"x": 5}, 5)
    assert run.records["after"]["output"] == 6


def test_what_it_raises_is_the_tasks_own_failure() -> None:
    async def inner() -> None:
        raise RuntimeError("x")

    async def t() -> None:
        await inner()

    run = Run(flow_of(task(t)))
    record = run.records["t"]
    assert (record["state"], record["error"]) == ("FAILED", "RuntimeError: x")
    assert record["exception"]["file"] == __file__
    assert record["exception"]["function"] == "inner"
    assert "asyncio" not in record["traceback"]
    assert run.raised is not None
    assert run.raised.__context__ is None


def test_each_try_runs_it_anew() -> None:
    calls = []

    async def t(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        if len(calls) < 3:
            raise ValueError("not yet")
        return len(calls)

    record = Run(flow_of(task(t, retries=3))).records["t"]
    assert (record["state"], record["try"], record["output"]) == ("SUCCEEDED", 3, 3)


def test_several_run_side_by_side_each_in_its_own_thread_and_loop() -> None:
    meeting = threading.Barrier(3, timeout=10)
    loops = []

    async def t() -> None:
        loops.append(asyncio.get_running_loop())
        meeting.wait()

    flow = Flow("m")
    for name in "abc":
        flow.add_task(task(t, name))
    run = Run(flow)
    assert run.raised is None
    assert len({id(loop) for loop in loops}) == 3


def test_what_it_started_is_ended_with_it() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def t() -> int:
        t.kept = asyncio.create_task(background())  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return 1

    assert Run(flow_of(task(t))).records["t"]["output"] == 1
    assert ended == [True]


def test_context_variables_do_not_reach_the_next_task() -> None:
    here: contextvars.ContextVar[int] = contextvars.ContextVar("here")

    async def t() -> None:
        here.set(5)

    assert Run(flow_of(task(t), task(lambda: here.get(1), "after"))).records["after"]["output"] == 1


async def rows() -> AsyncIterator[int]:
    yield 1


async def makes_rows() -> Any:
    return rows()


@pytest.mark.parametrize("function", [rows, makes_rows, lambda: rows(*[])])
def test_an_async_generator_is_refused_at_once_with_what_to_write(function: Any) -> None:
    run = Run(flow_of(task(function, retries=3)))
    assert run.raised is not None
    error = run.records["t"]["error"]
    assert "task 't' returned an async generator, which no other task can read" in error
    assert "[item async for item in rows(…)]" in error
    assert run.records["t"]["try"] == 1


def test_one_that_cancels_itself_fails_the_run() -> None:
    async def t() -> None:
        raise asyncio.CancelledError

    run = Run(flow_of(task(t)))
    assert run.records["t"]["state"] == "FAILED"
    assert run.context.status is not RunStatus.COMPLETED


def test_the_engine_sees_the_signature() -> None:
    async def t(ctx: Any, x: int, unknown: int = 7) -> int:
        return x + unknown + len(ctx.params)

    assert inspect.iscoroutinefunction(t)
    assert Run(flow_of(task(t))).records["t"]["output"] == 13
