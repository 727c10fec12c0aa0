"""The table of routes and roles in the documentation is the one that the gateway goes by."""

import re
from pathlib import Path

import pytest

from pyoco_server.gateway.access.rights import PUBLIC, RIGHTS
from pyoco_server.model.access import Role

KEYS = (Path(__file__).parents[2] / "docs/how-to/keys.md").read_text()
SPEC = (Path(__file__).parents[2] / "docs/spec.md").read_text()


def documented() -> dict[str, Role | None]:
    """Return the routes of the table, each with its role."""
    rows = re.findall(r"^\| (nothing|`\w+`) \| (.*) \|$", KEYS.split("| needs | routes |")[1], re.MULTILINE)
    return {
        line: PUBLIC if role == "nothing" else Role(role.strip("`"))
        for role, routes in rows
        for line in re.findall(r"`([^`]+)`", routes)
    }


def test_the_table_by_route_is_the_gateways() -> None:
    assert documented() == dict(RIGHTS)


@pytest.mark.parametrize("role", Role)
def test_every_role_is_explained(role: Role) -> None:
    assert f"| `{role.value}` | " in KEYS.split("| role | may |")[1].split("By route:")[0]
    assert f"`{role.value}`" in KEYS.split("| `--role` |")[1].splitlines()[0]
    assert f"--role {'|'.join(one.value for one in Role)}]" in SPEC
