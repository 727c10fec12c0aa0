"""What the OpenAPI document says is what is answered: schemathesis asks every operation, with and without keys."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from pyoco_server.gateway.streaming import page_events as eventstream
from pyoco_server.model.access import Role
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.settings.environment import Settings

from .keyholders import asking, make_key, sent
from .test_gateway import FLOW, Running, running, until

schemathesis = pytest.importorskip("schemathesis", reason="it needs Python 3.11")
requests = pytest.importorskip("requests", reason="schemathesis brings it")
checks = pytest.importorskip("schemathesis.checks")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")
GenerationMode = schemathesis.GenerationMode
pytestmark = pytest.mark.anyio

CHECKS = [
    openapi_checks.status_code_conformance, openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance, openapi_checks.response_headers_conformance,
    checks.not_a_server_error,
]  # fmt: skip
_QUICK, _LONG = 4, 60
"""Examples of each operation and kind."""


@dataclass
class Site:
    """A gateway, and who asks it."""

    here: Running
    url: str
    callers: dict[str, dict[str, str]]
    known: dict[str, list[str]] = field(default_factory=dict)
    """Values that name something that is there, by parameter."""

    @property
    def document(self) -> dict[str, Any]:
        """The gateway's own description."""
        return dict(self.here.listener._app.openapi())


async def filled(here: Running, url: str, callers: dict[str, dict[str, str]]) -> Site:
    """Put something of each kind there."""
    headers = next(iter(callers.values()))
    run_ids = []
    for _ in range(2):
        files, form = {"workflow": ("f.yaml", FLOW)}, {"flow_name": "main", "tag": "t"}
        made = await here.http.post("/runs/yaml", files=files, data=form, headers=headers)
        run_ids.append(made.json()["run_id"])
        await here.http.post(f"/runs/{run_ids[-1]}/cancel", headers=headers)
    letters = [
        await here.gateway.letters.publish(DeadLetter(reason=DeadLetterReason.INVALID_JOB, tag="t"), str(n))
        for n in range(3)
    ]
    await here.gateway.workers.put(WorkerRecord(worker_id="w1", tags=["t"]))
    await until(lambda: here.gateway.index.count() == len(run_ids))
    known = {"run_id": run_ids, "letter_id": [str(one) for one in letters], "worker_id": ["w1"], "name": ["nothing"]}
    return Site(here, url, callers, known)


@pytest.fixture
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstream, "_LONGEST_SEC", 0.01)
    monkeypatch.setattr(eventstream, "_HEARTBEAT_SEC", 0.01)


@pytest.fixture(params=["without keys", "with keys"])
async def site(settings: Settings, short_streams: None, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    settings = settings.model_copy(update={"reconcile_after_sec": 1e6})
    if request.param == "without keys":
        async with running(settings) as here:
            yield await filled(here, str(here.http.base_url), {"anybody": {}})
        return
    async with asking(settings) as here:
        store = here.gateway.keys.store
        callers = {role.value: sent(await make_key(store, role)) for role in reversed(Role)}
        yield await filled(here, str(here.http.base_url), {**callers, "no key": {}, "bad key": sent("nonsense")})


def ask_all(site: Site, modes: list[Any], examples: int) -> tuple[int, list[str]]:
    """Ask every operation, and give how many requests that took and what did not conform."""
    schema = schemathesis.openapi.from_dict(site.document)
    session = requests.Session()
    wrong: list[str] = []
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in modes:

            @hypothesis.settings(
                derandomize=True, max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
                suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
            )  # fmt: skip
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode), data=st.data())
            def ask(case: Any, data: st.DataObject) -> None:
                nonlocal asked
                for name in case.path_parameters or ():
                    if data.draw(st.booleans()):  # of what is there, too
                        case.path_parameters[name] = data.draw(st.sampled_from(site.known[name]))
                headers = site.callers[data.draw(st.sampled_from(sorted(site.callers)))]
                case.headers.update(headers)
                asked += 1
                answer = case.call(base_url=site.url, session=session, timeout=30)
                case.validate_response(answer, checks=CHECKS)
                assert_one_shape(answer)

            try:
                ask()
            except hypothesis.errors.Unsatisfiable:  # nothing of it can be sent that is wrong
                continue
            except (Exception, checks.FailureGroup) as error:  # noqa: BLE001 - all that is wrong is told at once
                told = [error, *getattr(error, "exceptions", ())]
                wrong.append(f"{operation.label} {mode.value}: {told}")
    return asked, wrong


def assert_one_shape(answer: Any) -> None:
    """Check that an error is one as the document has it, whatever the route; ``/ready`` has its own words."""
    if answer.status_code < 400 or answer.request.path_url.startswith("/ready"):
        return
    body = answer.json()
    assert set(body) == {"detail", "code", "hint"} | ({"trace_id"} if answer.status_code >= 500 else set()), body
    assert isinstance(body["detail"], str | list) and body["code"] and isinstance(body["hint"], str)


async def test_every_answer_is_in_the_document(site: Site) -> None:
    asked, wrong = await asyncio.to_thread(ask_all, site, [GenerationMode.POSITIVE], _QUICK)
    assert wrong == [], "\n\n".join(wrong)
    assert asked > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_every_answer_is_in_the_document_long(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    asked, wrong = await asyncio.to_thread(ask_all, site, list(GenerationMode), _LONG)
    assert wrong == [], "\n\n".join(wrong)
    with capsys.disabled():
        print(f"{asked} requests, all as the document says", end=" ")
