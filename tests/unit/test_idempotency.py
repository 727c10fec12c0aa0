"""Keys, the runs that they name, and when two requests are one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.errors import InvalidInput
from pyoco_server.model.idempotency import check_key, digest, run_id_of
from pyoco_server.model.run import is_run_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("key", ["k", "ключ 1", "夜間　2024-01-31", "a\u200bb", "x" * 255, '"quoted"'])
def test_keys(key: str) -> None:
    assert check_key(f"  {key}\t") == key


@pytest.mark.parametrize("key", ["", " ", "\t", "a\x00b", "a\nb", "x" * 256, "a\x85b", "a\u2028b", "\ud800"])
def test_bad_keys_are_told_what_to_write(key: str) -> None:
    with pytest.raises(InvalidInput, match="idempotency_key") as raised:
        check_key(key)
    assert raised.value.hint


def test_a_tenants_key_is_its_own() -> None:
    ids = {run_id_of(tenant, key) for tenant in (None, "", "a", "b", "None") for key in ("k", "a", '"k"')}
    assert len(ids) == 15 and all(is_run_id(run_id) for run_id in ids)
    assert run_id_of("a", "k") == run_id_of("a", "k")


@given(JSON)
def test_the_order_of_keys_does_not_count(value: Any) -> None:
    def turned(piece: Any) -> Any:
        if isinstance(piece, dict):
            return {key: turned(piece[key]) for key in reversed(piece)}
        return [turned(item) for item in piece] if isinstance(piece, list) else piece

    assert digest(params=value, tag="t") == digest(tag="t", params=turned(value))


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": True}), ({"a": 1}, {"a": 1.0}), ([1, 2], [2, 1]), (None, {}), ("1", 1), ({"a": None}, {})],
)
def test_what_differs_differs(one: Any, other: Any) -> None:
    assert digest(params=one) != digest(params=other)
