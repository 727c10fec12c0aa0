"""Clients that go on submitting whatever happens, as a patient user's script does."""

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator

import httpx2

from .cluster import Cluster, pause

RETRY = 0.1


class Load:
    """Submits steadily in a thread; each submission is repeated with its key until it is answered.

    Args:
        cluster: Where.
        every: Seconds between two submissions.
        seconds: How long each run takes.
        clients: How many do so at once.
    """

    def __init__(self, cluster: Cluster, every: float, seconds: float, clients: int = 1) -> None:
        self._cluster = cluster
        self._every = every
        self._params = {"seconds": seconds}
        self._clients = clients
        self._over = threading.Event()
        self.runs: list[str] = []
        self.answers: Counter[int | str] = Counter()
        """How often each HTTP status was the answer; an exception's name where there was none."""
        self.slowest_refusal = 0.0

    @contextlib.contextmanager
    def going(self) -> Iterator["Load"]:
        """Submit for as long as the block lasts; what was begun is finished afterwards."""
        threads = [threading.Thread(target=self._submit, name=f"load-{number}") for number in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads), "a submission was never answered"

    def _submit(self) -> None:
        number = 0
        while not self._over.is_set():
            self._one(uuid.uuid4().hex, number)
            number += 1
            self._over.wait(self._every)

    def _one(self, key: str, number: int) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            urls = self._cluster.urls
            asked = time.monotonic()
            try:
                answer = self._cluster.post("work", self._params, key=key, url=urls[number % len(urls)])
            except httpx2.HTTPError as error:
                self.answers[type(error).__name__] += 1
            else:
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    self.runs.append(answer.json()["run_id"])
                    return
                assert answer.status_code in (503, 507), answer.text
                self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - asked)
            number += 1  # another gateway may be there
            pause(RETRY)
