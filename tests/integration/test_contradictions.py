"""Of several NATS servers one may answer as the leader that it no longer is: what it does not know is not believed."""

from collections.abc import AsyncIterator

import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.feed import BucketFeed

from .test_gateway import Running, running

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


async def test_a_run_that_is_known_is_not_said_to_be_none(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    known = await here.submit()

    async def nothing(_: str, **_options: bool) -> None:
        """Stand in for a server that has not heard of the run."""

    for method in ("get", "get_raw"):
        monkeypatch.setattr(here.gateway.runs, method, nothing)
    for copies, status in (({here.gateway.runs._bucket.stream: 1}, 404), ({}, 503)):
        here.gateway.connection.cluster.copies = copies
        assert (await here.http.get(f"/runs/{known}")).status_code == status
        assert (await here.http.post(f"/runs/{known}/cancel")).status_code == status
        assert (await here.http.get("/runs/unknown")).status_code == 404


async def test_a_bucket_that_seems_to_be_behind_is_looked_at_again(here: Running) -> None:
    seen: list[str] = []
    feed = BucketFeed(
        here.gateway.connection, here.gateway.settings.runs_kv_bucket, on_changes=lambda _: None,
        on_reset=lambda: seen.append("reset"), start_after=10**6,
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="behind"):
            await feed._check_identity()
    assert seen == []
    await feed._check_identity()
    assert seen == ["reset"]
