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
_ANSWER_SEC = 90.0
_LAST_ANSWER_SEC = 60.0


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
        self._given_up = threading.Event()
        self.runs: list[str] = []
        self.answers: Counter[int | str] = Counter()
        """How often each HTTP status was the answer; an exception's name where there was none."""
        self.refusal = ""
        """What the last refusal said."""
        self.unanswered = 0
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
            deadline = time.monotonic() + _LAST_ANSWER_SEC
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._given_up.set()
            for thread in threads:  # the request that is under way has a time-out of its own
                thread.join(_LAST_ANSWER_SEC)
        told = f"never answered: {self.unanswered}; answers: {dict(self.answers)}; last refusal: {self.refusal}"
        assert not self.unanswered, told

    def _submit(self) -> None:
        number = 0
        while not self._over.is_set():
            self._one(uuid.uuid4().hex, number)
            number += 1
            self._over.wait(self._every)

    def _one(self, key: str, number: int) -> None:
        deadline = time.monotonic() + _ANSWER_SEC
        while time.monotonic() < deadline and not self._given_up.is_set():
            urls = self._cluster.urls
            asked = time.monotonic()
            try:
                answer = self._cluster.post("work", self._params, key=key, url=urls[number % len(urls)])
            except httpx2.HTTPError as error:
                self.answers[type(error).__name__] += 1
                self.refusal = repr(error)
            else:
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    self.runs.append(answer.json()["run_id"])
                    return
                self.refusal = answer.text
                assert answer.status_code in (503, 507), answer.text
                self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - asked)
            number += 1  # another gateway may be there
            pause(RETRY)
        self.unanswered += 1
