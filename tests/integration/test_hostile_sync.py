"""Whatever is stored as a wheel, by whomever: the others go on, and nobody's code takes another's place."""

import asyncio
import os
import shutil
import stat
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from pyoco_server.errors import InvalidSetting, StoreUnavailable
from pyoco_server.model.wheels.wheel import WheelEntry
from pyoco_server.settings.environment import Settings
from pyoco_server.wheelfile.inspection import Finding, Question
from pyoco_server.worker.machine.apart import Apart
from pyoco_server.worker.wheels import assembly
from pyoco_server.worker.wheels.environments import Environments
from pyoco_server.worker.wheels.installer import InstallFailed, MachineFailed
from pyoco_server.worker.wheels.trees import check_owner, fingerprint, make_folder, remove_tree, seal
from tests.hostile_wheels import HOSTILE
from tests.integration.test_environments import wheel_file
from tests.integration.test_wheel_sync import Registry, Running, names, running, settings
from tests.wheels import make_wheel, wheel_members, write_wheel

__all__ = ["settings"]
pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MANIFEST = "pyoco-environment.json"


def reasons(status: dict[str, Any]) -> dict[str, str]:
    return {item["wheel_name"]: item["text"] for item in status["skipped_incompatible"]}


def imported(worker: Running, module: str) -> str:
    assert worker.sync.environment is not None
    return (worker.sync.environment.directory / module).read_text()


async def test_a_name_of_ours_is_left_out_and_new_versions_of_others_arrive(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    for number, path in enumerate((f"{MANIFEST}/x", ".lock/x", ".lock")):
        members = {**wheel_members(f"bad{number}", "1"), path: "x"}
        registry.put(write_wheel(tmp_path / f"bad{number}-1-py3-none-any.whl", members))
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        assert names(worker.reports[-1]) == ["lib-1-py3-none-any.whl"]
        assert worker.reports[-1]["outcome"] == "partial"
        for number in range(3):
            assert f"bad{number}-1-py3-none-any.whl: the wheel is refused" in worker.reports[-1]["last_error"]
        registry.put(make_wheel(tmp_path, "lib", "2"))
        assert names(await worker.step()) == ["lib-2-py3-none-any.whl"]


@pytest.mark.slow
async def test_all_hostile_wheels_at_once(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    outside = {path for path in tmp_path.parent.rglob("*") if path.is_file()}
    refused = []
    for number, case in enumerate(HOSTILE):
        path = case.write(tmp_path, f"h{number}")
        entry = registry.put(path)
        if case.said is not None and case.tag.startswith("py3"):
            refused.append(entry.name)
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings.model_copy(update={"wheel_install_timeout_sec": 120.0}), registry) as worker:
        status = worker.reports[-1]
        assert "lib-1-py3-none-any.whl" in names(status)
        assert set(refused) <= reasons(status).keys()
        registry.put(make_wheel(tmp_path, "lib", "2"))
        status = await worker.step()
        assert "lib-2-py3-none-any.whl" in names(status)
    written = {path for path in tmp_path.parent.rglob("*") if path.is_file()} - outside
    assert all(settings.wheel_sync_dir in path.parents or path.parent == tmp_path for path in written)
    assert not list(settings.wheel_sync_dir.rglob("building/*"))


@pytest.mark.parametrize("trouble", [InstallFailed("uv says no"), OSError(17, "File exists"), KeyError("x")])
async def test_one_wheels_failure_is_its_own(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """A stand-in for what uv may say of a wheel that got through all checks."""
    real = assembly.install

    async def install(wheels: list[Path], *arguments: Any, **options: Any) -> None:
        if any("bad" in path.name for path in wheels):
            raise trouble
        await real(wheels, *arguments, **options)

    monkeypatch.setattr(assembly, "install", install)
    registry = Registry()
    for name in ("bad", "one", "two"):
        registry.put(make_wheel(tmp_path, name, "1"))
    async with running(settings, registry) as worker:
        assert names(worker.reports[-1]) == ["one-1-py3-none-any.whl", "two-1-py3-none-any.whl"]
        assert list(reasons(worker.reports[-1])) == ["bad-1-py3-none-any.whl"]
        assert str(trouble.args[-1]) in worker.reports[-1]["last_error"]


async def test_where_the_machine_is_at_fault_what_works_is_not_given_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "big", "1"))
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        used = worker.sync.environment
        real = assembly.install

        async def install(wheels: list[Path], *arguments: Any, **options: Any) -> None:
            if any("big" in path.name for path in wheels):
                raise MachineFailed("No space left on device (os error 28)")
            await real(wheels, *arguments, **options)

        monkeypatch.setattr(assembly, "install", install)
        registry.put(make_wheel(tmp_path, "lib", "2"))
        status = await worker.step()
        assert worker.sync.environment is used
        assert (status["outcome"], "No space left" in status["last_error"]) == ("failed", True)
        registry.put(make_wheel(tmp_path, "lib", "3"))
        registry.remove("big-1-py3-none-any.whl")
        registry.put(make_wheel(tmp_path, "big", "2"))  # it never worked here: the others go on without it
        assert names(await worker.step()) == ["lib-3-py3-none-any.whl"]


async def test_a_wheel_whose_bytes_cannot_be_read_hinders_no_other(settings: Settings, tmp_path: Path) -> None:
    class Torn(Registry):
        async def read_to(self, entry: WheelEntry, file: BinaryIO) -> None:
            if entry.package == "torn":
                raise StoreUnavailable("only 3 of the 500 bytes are there")
            await super().read_to(entry, file)

    registry = Torn()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    registry.put(make_wheel(tmp_path, "torn", "1"))
    huge = registry.put(make_wheel(tmp_path, "huge", "1"))
    registry.entries[huge.name] = huge.model_copy(update={"size_bytes": 1 << 50})
    async with running(settings, registry) as worker:
        assert names(worker.reports[-1]) == ["lib-1-py3-none-any.whl"]
        told = reasons(worker.reports[-1])
        assert told["torn-1-py3-none-any.whl"] == "only 3 of the 500 bytes are there"
        assert "PYOCO_WHEEL_MAX_BYTES" in told[huge.name]


async def test_another_wheels_modules_are_not_replaced(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "victim", "1"))
    async with running(settings, registry) as worker:
        attack = make_wheel(tmp_path, "attacker", "1", {"victim/__init__.py": "1 / 0", "attacker.py": ""})
        registry.put(attack)
        status = await worker.step()
        assert names(status) == ["victim-1-py3-none-any.whl"]
        assert status["outcome"] == "partial"
        assert all(
            text in status["last_error"] for text in (attack.name, "victim-1-py3-none-any.whl", "'victim/__init__.py'")
        )
        assert "VERSION" in imported(worker, "victim/__init__.py")
        registry.remove(attack.name)
        assert (await worker.step())["last_result"] == "ok"
    async with running(settings, registry) as worker:  # a new version is no conflict with the one before
        registry.put(make_wheel(tmp_path, "victim", "2"))
        assert names(await worker.step()) == ["victim-2-py3-none-any.whl"]


async def test_a_wheel_hides_no_namespace_package_of_the_worker(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site/spaced/inner").mkdir(parents=True)
    (tmp_path / "site/spaced/inner/x.py").touch()
    (tmp_path / "site/empty").mkdir()
    monkeypatch.setattr(assembly, "_own_places", lambda: [str(tmp_path / "site")])
    registry = Registry()
    for name, path in (("a", "spaced/__init__.py"), ("b", "spaced/more.py"), ("c", "empty/__init__.py")):
        # The second would be in conflict with the first, were that not left out itself.
        registry.put(make_wheel(tmp_path, name, "1", {path: ""}))
    async with running(settings, registry) as worker:
        assert names(worker.reports[-1]) == ["b-1-py3-none-any.whl", "c-1-py3-none-any.whl"]
        assert "'spaced' would hide the namespace package" in worker.reports[-1]["last_error"]


def change(path: Path) -> None:
    """Change a file as a task would that wants it to go unseen: same size, same time."""
    before = path.stat()
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"VERSION", b"NOISREV"))
    path.chmod(stat.S_IMODE(before.st_mode))
    path.parent.chmod(0o555)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["change", "add", "remove", "forge", "manifest", "link"])
async def test_a_changed_environment_is_built_anew(settings: Settings, tmp_path: Path, how: str) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        environment = worker.sync.environment
        assert environment is not None
        assert environment.flaw() is None
        module = environment.directory / "lib/__init__.py"
        before = module.read_bytes()
        environment.directory.chmod(0o755)
        if how in ("change", "forge"):
            change(module)
        elif how == "add":
            (environment.directory / "json.py").write_text("1 / 0")
        elif how == "link":
            module.parent.chmod(0o755)
            module.rename(module.with_suffix(".was"))
            module.symlink_to(module.with_suffix(".was"))
        elif how == "manifest":
            (environment.directory / MANIFEST).unlink()
        else:
            module.parent.chmod(0o755)
            module.unlink()
        if how == "forge":
            manifest = environment.directory / MANIFEST
            manifest.chmod(0o644)
            known = fingerprint(environment.directory, but=MANIFEST)
            manifest.write_text(manifest.read_text().replace(environment.fingerprint, known))
        environment._looked[0] = 0.0
        assert environment.flaw() == ("is gone" if how == "manifest" else "was changed")
        worker.sync.look()
        await worker.until(lambda _: worker.sync.environment is not environment)
        assert module.read_bytes() == before
        assert not (environment.directory / "json.py").exists()
        assert worker.sync.environment is not None
        assert worker.sync.environment.flaw() is None


async def test_an_environment_is_read_only_and_folders_are_private(settings: Settings, tmp_path: Path) -> None:
    registry = Registry()
    members = {"lib/__init__.py": "", "lib/run.sh": "", "lib-1.data/scripts/run": "#!python\n"}
    registry.put(make_wheel(tmp_path, "lib", "1", members))
    mask = os.umask(0)
    try:
        async with running(settings, registry) as worker:
            environment = worker.sync.environment
    finally:
        os.umask(mask)
    assert environment is not None
    modes = {stat.S_IMODE(path.stat().st_mode) for path in environment.directory.rglob("*")}
    assert modes == {0o444, 0o555}
    assert stat.S_IMODE(environment.directory.stat().st_mode) == 0o555
    root = settings.wheel_sync_dir
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.iterdir()]}
    assert found == dict.fromkeys(("wheels", "envs", "files", "locks", "building", "workers"), 0o700)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root / "locks").iterdir()} == {0o600}


async def test_another_user_may_read_the_environments_alone(tmp_path: Path) -> None:
    root = tmp_path / "wheels"
    root.mkdir(0o700)
    stop = asyncio.Event()
    made = Environments(root, timeout=60, with_dependencies=False, stop=stop, apart=Apart(user=cast(Any, object())))
    wheel = wheel_file(make_wheel(tmp_path, "lib", "1"))
    environment = await made.obtain(wheel.sha256, [wheel])
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.iterdir(), environment.directory]}
    assert found.pop(environment.digest) == 0o555
    assert found == {"wheels": 0o711, "envs": 0o755, "locks": 0o700, "building": 0o755}


@pytest.mark.parametrize("folder", ["locks", "files", "building", "envs", "workers", "."])
async def test_folders_that_are_gone_are_made_anew(settings: Settings, tmp_path: Path, folder: str) -> None:
    registry = Registry()
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        remove_tree(settings.wheel_sync_dir / folder)
        registry.put(make_wheel(tmp_path, "lib", "2"))
        status = await worker.step()
        assert (names(status), status["last_result"]) == (["lib-2-py3-none-any.whl"], "ok")


def test_what_python_writes_for_other_interpreters_is_no_change(tmp_path: Path) -> None:
    root = tmp_path / "env"
    (root / "a/__pycache__").mkdir(parents=True)
    (root / "a/b.py").write_text("")
    before = fingerprint(root, but=MANIFEST)
    (root / "a/__pycache__/b.cpython-27.opt-1.pyc").write_text("")
    assert fingerprint(root, but=MANIFEST) == before
    (root / f"a/__pycache__/b.{os.sys.implementation.cache_tag}.pyc").write_text("")  # type: ignore[attr-defined]
    assert fingerprint(root, but=MANIFEST) != before


def test_special_rights_do_not_survive_a_seal(tmp_path: Path) -> None:
    root = tmp_path / "env"
    make_folder(root / "a")
    for name, mode in (("odd", 0o6755), ("open", 0o666)):
        (root / "a" / name).touch()
        (root / "a" / name).chmod(mode)
    (root / "a/link").symlink_to("/etc/passwd")
    seal(root)
    assert [stat.S_IMODE((root / "a" / name).stat().st_mode) for name in ("odd", "open")] == [0o555, 0o444]
    assert stat.S_IMODE(Path("/etc/passwd").stat().st_mode) != 0o444
    remove_tree(root)
    assert not root.exists()


@pytest.mark.parametrize(
    ("where", "mode", "owner", "said"),
    [
        ("wheels", 0o755, 0, None),
        ("wheels", 0o777, 0, "can be written by everybody"),
        ("wheels", 0o1777, 0, "can be written by everybody"),
        ("wheels", 0o775, 0, None),
        ("wheels", 0o755, 12345, "belongs to the user 12345"),
        ("above", 0o777, 0, "can be written by everybody"),
        ("above", 0o1777, 0, None),
        ("above", 0o755, 12345, "belongs to the user 12345"),
        ("above", 0o1777, 12345, "belongs to the user 12345"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_whose_the_directory_may_be(tmp_path: Path, where: str, mode: int, owner: int, said: str | None) -> None:
    above = tmp_path / "above"
    (above / "wheels").mkdir(parents=True)
    path = above / "wheels" if where == "wheels" else above
    path.chmod(mode)
    os.chown(path, owner, -1)
    (tmp_path / "link").symlink_to(above / "wheels")
    inner = above / "wheels/not/yet/there"  # where nobody else can remove what is made
    for named in (above / "wheels", tmp_path / "link", *([] if mode == 0o1777 else [inner])):
        if said is None:
            check_owner(named)
            continue
        with pytest.raises(InvalidSetting, match=said) as caught:
            check_owner(named)
        assert str(path) in caught.value.message
        assert "PYOCO_WHEEL_SYNC_DIR" in caught.value.hint
    os.chown(path, 0, -1)
    shutil.rmtree(above)


def test_a_group_may_write_only_if_it_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o775)
    monkeypatch.setattr("pyoco_server.worker.wheels.trees._is_private", lambda gid: False)
    os.chown(tmp_path, -1, 4242) if os.geteuid() == 0 else None
    if tmp_path.stat().st_gid == 0:
        pytest.skip("root's group is root's")
    with pytest.raises(InvalidSetting, match="can be written by the group"):
        check_owner(tmp_path)
    monkeypatch.setattr("pyoco_server.worker.wheels.trees._is_private", lambda gid: True)
    check_owner(tmp_path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "wheels").touch()
    with pytest.raises(InvalidSetting, match="is no directory"):
        check_owner(tmp_path / "wheels")


async def test_what_was_refused_is_not_looked_into_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyoco_server.worker.wheels.sync._FIRST_RETRY", 0.01)
    asked: list[list[str]] = []
    real = assembly.inspect

    async def inspect(questions: list[Question], **options: Any) -> list[Finding]:
        asked.append([question.name for question in questions])
        return await real(questions, **options)

    monkeypatch.setattr(assembly, "inspect", inspect)
    registry = Registry()
    bad = registry.put(write_wheel(tmp_path / "bad-1-py3-none-any.whl", {**wheel_members("bad", "1"), ".lock": ""}))
    registry.put(make_wheel(tmp_path, "lib", "1"))
    async with running(settings, registry) as worker:
        for version in ("2", "3"):
            registry.put(make_wheel(tmp_path, "lib", version))
            status = await worker.step()
            assert reasons(status).keys() == {bad.name}
    assert sum(bad.name in names for names in asked) == 1
