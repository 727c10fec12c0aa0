"""Names of wheels, the version rule, and which wheels a worker uses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import Tag, parse_tag

from pyoco_server.errors import InvalidInput, WheelVersionConflict
from pyoco_server.model.tags import check_tag
from pyoco_server.model.wheels.file_name import package_name, parse_pin, parse_wheel_name
from pyoco_server.model.wheels.object_name import NO_WORKER, file_name_of, object_name
from pyoco_server.model.wheels.wheel import WheelEntry, check_newer, select, set_digest

LINUX = [
    *parse_tag("cp311-cp311-manylinux_2_17_x86_64"), *parse_tag("cp311-abi3-manylinux_2_17_x86_64"),
    Tag("py3", "none", "any"),
]  # fmt: skip


def entry(of: str, number: str, *tags: str, on: str = "py3-none-any", **fields: Any) -> WheelEntry:
    name = f"{of}-{number}-{on}.whl"
    known = {
        "name": name, "size_bytes": 1, "digest": "SHA-256=x", "sha256_b64": "x", "sha256_hex": name.encode().hex(),
        "mtime": "2026-01-01T00:00:00+00:00", "modified": 1.0, "bucket": "b", "nuid": "n", "tags": list(tags),
        "package": of.replace("_", "-"), "version": number,
    }  # fmt: skip
    return WheelEntry(**{**known, **fields})


def chosen(entries: list[WheelEntry], *worker_tags: str, **options: Any) -> list[str]:
    return [item.name.removesuffix("-py3-none-any.whl") for item in select(entries, worker_tags, LINUX, **options)[0]]


def test_a_name_says_package_version_build_and_tags() -> None:
    name = parse_wheel_name("Task_CPU-1!1.0+local.1-2b-py2.py3-none-any.whl")
    assert (name.package, str(name.version), name.build) == ("task-cpu", "1!1.0+local.1", (2, "b"))
    assert {str(tag) for tag in name.tags} == {"py2-none-any", "py3-none-any"}


@pytest.mark.parametrize(
    "name",
    [
        "", ".whl", "a.zip", "a-1.whl", "a-1-py3-none-any.WHL", "a/b-1-py3-none-any.whl", "../a-1-py3-none-any.whl",
        "a\\b-1-py3-none-any.whl", "a-1-py3-none-any.whl\n", "a-one-py3-none-any.whl", "ä-1-py3-none-any.whl",
        "a-1-x-py3-none-any.whl", "a-1-py3-none-any/x.whl", "a-1-py3..py2-none-any.whl", "a__b-1-py3-none-any.whl",
        "a-1-py3-none-any\0.whl", "a" * 200 + "-1-py3-none-any.whl", "-1-py3-none-any.whl",
        f"a-1-{'.'.join('abcdefghi')}-{'.'.join('abcdefghi')}-{'.'.join('abcdefghi')}.whl",
    ],
)  # fmt: skip
def test_what_is_no_wheels_name_is_told_what_one_looks_like(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_wheel_name(name)
    assert "0.1.0-py3-none-any.whl" in caught.value.hint


@given(st.text(max_size=40).map(lambda text: text + ".whl"))
def test_any_text_is_a_name_or_refused(name: str) -> None:
    try:
        assert parse_wheel_name(name).file_name == name
        assert "/" not in name and name.isascii()
    except InvalidInput:
        pass


def test_a_pin_is_name_and_version() -> None:
    assert parse_pin(" Task_CPU ==1.0.0") == ("task-cpu", parse_wheel_name("a-1-py3-none-any.whl").version)
    for text in ("a", "a==", "==1", "a==x", "a b==1", "a=1"):
        with pytest.raises(InvalidInput):
            parse_pin(text)
    assert package_name("A.b") == "a-b"


@pytest.mark.parametrize("version", ["1.10", "1.10.0", "1.9", "1.10rc1", "0.1"])
def test_the_same_or_an_older_version_is_refused_whatever_its_tags(version: str) -> None:
    stored = [
        entry("a", "1.2", "cpu"),
        entry("a", "1.10", "gpu"),
        entry("b", "9"),
        entry("x", "9", package=None, version=None),
    ]
    with pytest.raises(WheelVersionConflict, match=r"not newer than 1\.10, the newest") as caught:
        check_newer(stored, parse_wheel_name(f"A-{version}-cp311-none-any.whl"))
    assert "wheel-pin a==" in caught.value.hint
    check_newer(stored, parse_wheel_name("a-1.10.1-py3-none-any.whl"))
    check_newer(stored, parse_wheel_name(f"c-{version}-py3-none-any.whl"))


def test_a_worker_uses_what_has_no_tags_or_one_of_its_own() -> None:
    stored = [entry("c", "1", "cpu", "x"), entry("g", "1", "gpu"), entry("s", "1")]
    assert chosen(stored, "cpu") == ["c-1", "s-1"]
    assert chosen(stored, "gpu", "default") == ["g-1", "s-1"]
    assert chosen(stored, "cpu", "gpu") == ["c-1", "g-1", "s-1"]
    assert chosen(stored, "other") == ["s-1"]


def test_of_each_package_the_newest_version_that_is_for_the_worker() -> None:
    stored = [entry("a", "1.9", "cpu"), entry("a", "1.10", "cpu"), entry("a", "2", "gpu"), entry("A_b", "1")]
    assert chosen(stored, "cpu") == ["A_b-1", "a-1.10"] or chosen(stored, "cpu") == ["a-1.10", "A_b-1"]
    assert "a-2" in chosen(stored, "gpu")


def test_a_pinned_wheel_goes_before_newer_ones_where_its_tags_match() -> None:
    stored = [entry("a", "1", "cpu", pinned_at=5.0), entry("a", "2"), entry("a", "3", pinned_at=None)]
    assert chosen(stored, "cpu") == ["a-1"]
    assert chosen(stored, "gpu") == ["a-3"]
    stored.append(entry("a", "1.5", pinned_at=6.0))
    assert chosen(stored, "cpu") == ["a-1.5"]


def test_what_cannot_be_installed_is_skipped_with_its_reason() -> None:
    stored = [
        entry("a", "1"),
        entry("a", "2", on="cp311-cp311-win_amd64", pinned_at=9.0),
        entry("a", "3", on="cp39-cp39-manylinux_2_17_x86_64"),
        entry("a", "4", requires_python=">=3.12"),
        entry("a", "5", requires_python="nonsense"),
        entry("a", "6", "gpu", on="cp311-cp311-win_amd64"),
        entry("a", "7", name="old file.whl"),
    ]
    found = select(stored, ["cpu"], LINUX, python_version="3.11.4")
    assert [item.version for item in found.chosen] == ["1"]
    reasons = {item.entry.version: item.reason for item in found.skipped_incompatible}
    assert sorted(reasons) == ["2", "3", "4", "5", "7"]
    assert "win_amd64" in reasons["2"] and "requires Python >=3.12, this is 3.11.4" in reasons["4"]
    assert "not the name of a wheel" in reasons["7"] and "cannot be read" in reasons["5"]
    assert [item.version for item in select(stored, ["cpu"], LINUX).chosen] == ["5"]


def test_of_one_version_the_wheel_that_fits_best() -> None:
    stored = [entry("a", "1"), entry("a", "1", on="cp311-cp311-manylinux_2_17_x86_64"), entry("a", "1-7")]
    for items in (stored, stored[::-1]):
        assert select(items, [], LINUX).chosen[0].name == "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"
    assert select([stored[0], stored[2]], [], LINUX).chosen == (stored[2],)


def test_a_set_is_named_by_its_bytes() -> None:
    one, two = entry("a", "1"), entry("b", "1")
    assert set_digest([one, two]) == set_digest((two, one)) != set_digest([one])
    assert len(set_digest([])) == 64


def test_a_tenants_wheel_goes_before_a_shared_one_whatever_versions_and_pins() -> None:
    shared = entry("a", "9", pinned_at=5.0)
    own = [entry("a", number, tenant_id="t") for number in ("1", "2")]
    for order in ([shared, *own], [*own, shared]):
        assert chosen(order, "cpu") == ["a-2"]
    assert chosen([shared, entry("a", "2", "gpu", tenant_id="t")], "cpu") == ["a-9"]
    with pytest.raises(WheelVersionConflict):
        check_newer([shared, *own], parse_wheel_name("a-2-py3-none-any.whl"), "t")
    check_newer([shared, *own], parse_wheel_name("a-3-py3-none-any.whl"), "t")
    check_newer([shared, *own], parse_wheel_name("a-1-py3-none-any.whl"), "other")


def test_the_name_of_a_tenants_object_is_no_wheels() -> None:
    name = object_name("a-1-py3-none-any.whl", "some_tenant-1")
    assert file_name_of(name, "some_tenant-1") == "a-1-py3-none-any.whl"
    assert object_name("a-1-py3-none-any.whl", None) == "a-1-py3-none-any.whl"
    with pytest.raises(InvalidInput):
        parse_wheel_name(name)
    for tenant in ("tenant-1", "1", "", "other"):
        with pytest.raises(ValueError):
            file_name_of(name, tenant)
    with pytest.raises(InvalidInput):  # or no tag could be told from it
        check_tag(NO_WORKER)
