"""Each answer says how much of the interface the server has, good or bad."""

import pytest

from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.errors import ApiError
from pyoco_server.model.level import HEADER, LEVEL
from pyoco_server.settings.environment import Settings

from .test_gateway import running

pytestmark = pytest.mark.anyio
FLOW = (
    "version: 1\nflow: {graph: a, defaults: {x: 1}}\ntasks: {a: {callable: 'math:sqrt', inputs: {x: $ctx.params.x}}}\n"
)


async def test_every_answer_says_it(settings: Settings) -> None:
    async with running(settings) as gateway:
        run_id = (await gateway.http.post("/runs", json={"flow_name": "main"})).json()["run_id"]
        for method, path in (
            ("GET", "/health"), ("GET", "/ready"), ("GET", "/runs"), ("GET", "/runs/none"), ("GET", "/nothing"),
            ("PUT", "/runs"), ("POST", "/runs"), ("GET", "/"), ("HEAD", "/health"), ("GET", "/openapi.json"),
            ("GET", f"/runs/{run_id}/watch?timeout_sec=1"),
        ):  # fmt: skip
            answer = await gateway.http.request(method, path)
            assert answer.headers.get_list(HEADER) == [str(LEVEL)], (path, answer.headers)


async def test_a_flow_that_goes_as_text_is_the_same(settings: Settings) -> None:
    """So it goes where older servers would leave something aside: see ``requests.submit_yaml``."""
    text = FLOW + "# é ☃ \r\n"
    async with running(settings) as gateway, AsyncPyocoHttpClient(gateway.listener.url) as client:
        plain = await client.submit_run_yaml(text, flow_name="main")
        given = await client.submit_run_yaml(text, flow_name="main", params={"x": 2}, idempotency_key="k")
        one, other = [await client.get_run(made["run_id"]) for made in (plain, given)]
        assert one["workflow_yaml_sha256"] == other["workflow_yaml_sha256"] and one["workflow_yaml_bytes"] == len(
            text.encode()
        )
        assert (one["params"], other["params"]) == ({"x": 1}, {"x": 2})
        with pytest.raises(ApiError) as caught:
            await client.submit_run_yaml("version: 1\nflow: {graph: b}\n", flow_name="main", params={"x": 2})
        assert caught.value.code == "invalid_flow"
