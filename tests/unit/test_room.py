"""How much room is given out between two looks at the store."""

import asyncio
from typing import Any

import pytest

from pyoco_server.errors import StoreFull, StoreUnavailable
from pyoco_server.gateway.maintenance.relief import Relief
from pyoco_server.gateway.monitoring import capacity as room
from pyoco_server.gateway.monitoring.capacity import StoreRoom
from pyoco_server.gateway.monitoring.storage_limits import Tank
from pyoco_server.settings.environment import Settings
from pyoco_server.store.status.account import Account

pytestmark = pytest.mark.anyio

LIMIT = 1_000_000


class Store:
    """Stands in for NATS: what is stored counts at once, and is told when somebody asks."""

    is_up = True

    def __init__(self) -> None:
        self.used, self.looks, self.silent = 0, 0, False

    async def read(self, _: Any) -> Account:
        if self.silent:
            raise StoreUnavailable("no answer")
        self.looks += 1
        used = self.used
        await asyncio.sleep(0)
        return Account(used, 0, LIMIT)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(room, "read_account", made.read)
    monkeypatch.setattr(room, "_AGAIN_SEC", 0.0)
    monkeypatch.setattr(room, "_REFUSED_AGAIN_SEC", 0.0)
    return made


def rooms(store: Store, count: int = 1, load: Any = lambda: (0, 0), **update: Any) -> list[StoreRoom]:
    settings = Settings(_env_file=None).model_copy(update={"max_run_snapshot_bytes": 10_000, **update})
    return [StoreRoom(settings, store, load=load) for _ in range(count)]  # type: ignore[arg-type]


async def fill(store: Store, where: list[StoreRoom], size: int, writers: int = 32) -> None:
    """Store as fast as it goes over all gateways, until each writer was refused."""

    async def one(here: StoreRoom) -> None:
        while True:
            try:
                async with here.hold(size):
                    await asyncio.sleep(0)
                    store.used += size
                    assert store.used < 2 * LIMIT
            except StoreFull:
                return

    await asyncio.gather(*(one(where[number % len(where)]) for number in range(writers)))


@pytest.mark.parametrize("size", [100, 5_000, 60_000])
@pytest.mark.parametrize("gateways", [1, 2, 4])
async def test_many_writers_do_not_overrun_it(store: Store, size: int, gateways: int) -> None:
    where = rooms(store, gateways)
    for here in where:
        await here.look()
    await fill(store, where, size)
    slack = size if gateways == 1 else gateways * size
    assert 0.95 * LIMIT - 2 * size - 5_000 <= store.used <= 0.95 * LIMIT + (0 if gateways == 1 else slack)


async def test_no_look_is_needed_while_there_is_plenty(store: Store) -> None:
    [here] = rooms(store)
    await here.look()
    for _ in range(100):
        async with here.hold(1_000):
            store.used += 1_000
    assert store.looks == 1


async def test_what_is_given_out_counts_until_a_look_has_seen_it(store: Store) -> None:
    [here] = rooms(store)
    await here.look()
    async with here.hold(100_000):
        assert here.figures()["used_bytes"] == 100_000
        store.used += 100_000
        await here.look()
        assert here.figures()["used_bytes"] == 200_000  # it may have been stored after NATS was asked
    await here.look()
    assert here.figures()["used_bytes"] == 100_000
    async with here.hold(100_000):
        store.used += 100_000
    store.silent = True
    await here.look()
    assert here.figures()["used_bytes"] == 200_000  # what was not answered has seen nothing


async def test_of_replicas_the_others_tell_a_moment_later(store: Store) -> None:
    [here] = rooms(store, nats_replicas=3)
    await here.look()
    async with here.hold(10_000):
        pass
    await here.look()
    assert here.figures()["used_bytes"] == 30_000
    await here.look()
    assert here.figures()["used_bytes"] == 0


async def test_room_is_set_aside_for_the_runs_that_are_there(store: Store) -> None:
    load = [0, 0]
    [here] = rooms(store, load=lambda: tuple(load))
    for running, waiting, aside in ((0, 0, 0), (10, 0, 100_000), (0, 10, 40_960), (1000, 0, 475_000)):
        load[:] = [running, waiting]
        store.used = int(0.95 * LIMIT) - aside - 1
        await here.look()
        assert not here.refusal() and here.figures()["set_aside_bytes"] == aside
        store.used += 1
        await here.look()
        assert "is nearly full" in here.refusal()
        assert ("set aside" in here.refusal()) == (aside >= 1_000_000)


async def test_a_refused_one_is_taken_as_soon_as_there_is_room(store: Store) -> None:
    [here] = rooms(store)
    store.used = LIMIT
    await here.look()
    with pytest.raises(StoreFull):
        await here.check(1)
    store.used = 0
    await here.check(1)


async def test_logs_go_where_hardly_any_room_is_left() -> None:
    freed: list[int] = []

    class Logs:
        async def drop_oldest(self, size: int) -> int:
            freed.append(size)
            return size

    relief = Relief(Logs())  # type: ignore[arg-type]
    for used, expected in ((0, None), (979_000, None), (985_000, 25_000), (1_100_000, 140_000)):
        freed.clear()
        await relief.look_after([Tank("a", 0, LIMIT), Tank("b", used, LIMIT)])
        assert freed == ([expected] if expected else [])
    huge = 10**13
    await relief.look_after([Tank("a", huge - 10**8, huge)])
    assert freed[-1:] != [int(0.04 * huge)]
