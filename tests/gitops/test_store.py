"""What is asked of DVC, asked of the real one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.data_cloud import DataCloud
from dvc.repo import Repo
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest
from gitops.integrations import dvc


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a pipeline of one stage, in a repository whose remote is a folder."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    with Repo.init() as repository:
        with repository.config.edit() as config:
            config["core"] = {"remote": "storage", "analytics": False}
            config["remote"]["storage"] = {"url": str(tmp_path / "remote")}
        Path("source").write_text("contents")
        stage = "stages: {copy: {cmd: cp source result, deps: [source], outs: [result]}}"
        Path("dvc.yaml").write_text(stage)
        repository.reproduce()
    return Path("result")


def test_an_object_comes_back_by_its_md5_from_the_remote(result: Path) -> None:
    md5 = digest(result, "md5")
    dvc.push()
    shutil.rmtree(".dvc/cache")
    assert dvc.fetch(md5).read_text() == "contents"


def test_an_import_of_another_repository_is_kept_there(result: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other, table = tmp_path_factory.mktemp("other"), Path("table")
    subprocess.run(["git", "init", "--quiet", other], check=True)

    def change(name: str, text: str) -> None:
        (other / name).write_text(text)
        subprocess.run(["git", "-C", other, "add", "--all"], check=True)
        person = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
        subprocess.run(["git", "-C", other, *person, "commit", "--quiet", "--message", text], check=True)

    change("table", "one")
    with Repo() as repository:
        repository.imp(str(other), "table")
    dvc.push()
    (kept,) = dvc.tracked_objects([digest(result, "md5"), digest(table, "md5")])
    assert kept.read_text() == "contents" and artifacts.tracked_md5(table) == digest(table, "md5")
    change("table", "two")
    dvc.update(table)
    assert table.read_text() == "two" and artifacts.tracked_md5(table) == digest(table, "md5")


def test_a_missing_object_is_an_error(result: Path) -> None:
    with pytest.raises(ProjectError, match="neither in DVC's cache nor in its remote"):
        dvc.fetch("0" * 32)


def test_many_objects_are_fetched_at_once_and_a_missing_one_hinders_no_other(
    result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("second").write_text("more")
    dvc.add(Path("second"))
    md5s = [digest(path, "md5") for path in (result, Path("second"))]
    dvc.push()
    shutil.rmtree(".dvc/cache")
    pulls: list[int] = []
    pull = DataCloud.pull

    def counted(cloud: DataCloud, objects: list[object], **options: object) -> object:
        pulls.append(len(objects))
        return pull(cloud, objects, **options)

    monkeypatch.setattr(DataCloud, "pull", counted)
    for expected in ([3], [3, 1]):  # the second time, the cache has what the remote had
        found = dvc.fetch_all([*md5s, "0" * 32, "no md5", md5s[0]])
        assert [found[md5].read_text() for md5 in md5s] == ["contents", "more"]  # type: ignore[union-attr]
        assert "neither in DVC's cache nor in its remote" in str(found["0" * 32])
        assert "is not the md5 of an object" in str(found["no md5"])
        assert pulls == expected


def test_a_missing_remote_leaves_what_the_cache_has(result: Path) -> None:
    Path(".dvc/config").write_text("")
    md5 = digest(result, "md5")
    found = dvc.fetch_all([md5, "0" * 32])
    assert isinstance(found[md5], Path) and "no remote" in str(found["0" * 32])


def test_a_missing_remote_is_an_error(result: Path) -> None:
    Path(".dvc/config").write_text("")
    with pytest.raises(ProjectError, match="no remote"):
        dvc.fetch("0" * 32)
    with pytest.raises(ProjectError, match="no remote"):
        dvc.push()


def test_a_stage_is_stale_when_its_input_or_its_result_changed(result: Path) -> None:
    assert dvc.stale() == []
    result.unlink()
    result.write_text("by hand")
    assert dvc.stale() == ["copy"]
    Path("source").write_text("other contents")
    assert dvc.stale() == ["copy"]


@pytest.mark.parametrize("wanted_is_in", ["cache", "remote"])
def test_an_older_version_of_a_table_is_replaced_by_its_pointers(result: Path, wanted_is_in: str) -> None:
    """As after a merge that moved the pointer, and before DVC takes the older one for a new version."""
    table = Path("table")
    assert not dvc.follow(table)
    for version in ("old", "new"):
        table.unlink(missing_ok=True)
        table.write_text(version)
        dvc.add(table)
    assert not dvc.follow(table)
    if wanted_is_in == "remote":
        dvc.push()
        with Repo() as repository:
            Path(repository.cache.local.oid_to_path(digest(table, "md5"))).unlink()
    table.unlink()
    table.write_text("old")
    assert dvc.follow(table)
    assert table.read_text() == "new"


def folder_of(**files: str) -> Path:
    """Make a folder of these files its newest version."""
    folder = Path("folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    dvc.add(folder)
    return folder


def test_an_older_version_of_a_folder_is_replaced_by_its_pointers(result: Path) -> None:
    folder = folder_of(a="one")
    old = Path("folder.dvc").read_text()
    folder_of(a="one", b="two")
    new = Path("folder.dvc").read_text()
    Path("folder.dvc").write_text(old)
    assert dvc.follow(folder) and not (folder / "b").exists()
    Path("folder.dvc").write_text(new)
    (folder / "c").write_text("a person's")
    assert not dvc.follow(folder) and (folder / "c").exists()
    with pytest.raises(ProjectError, match=r"folder differs from folder\.dvc, and DVC has no copy"):
        dvc.pull_data()
    (folder / "c").unlink()
    dvc.pull_data()
    assert (folder / "b").read_text() == "two"


def test_a_file_of_a_folder_that_is_not_what_its_name_says_is_refused(result: Path) -> None:
    folder = folder_of(a="one")
    dvc.push()
    shutil.rmtree(folder)
    kept = dvc.cached(hashlib.md5(b"one", usedforsecurity=False).hexdigest())
    kept.chmod(0o644)
    kept.write_text("another")
    kept.chmod(0o444)  # DVC trusts what cannot be written
    with pytest.raises(ProjectError, match=r"folder/a is not the file that folder\.dvc names \(md5 "):
        dvc.pull_data()


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_a_linked_cache_is_never_written_through(result: Path, tmp_path: Path, kind: str) -> None:
    """DVC's advice for large data; its cache may lie on another disk, and is shared by every checkout."""
    table = Path("table")
    with Repo() as repository, repository.config.edit("local") as config:
        config["cache"] = {"type": kind, "dir": str(tmp_path / "elsewhere")}
    table.write_text("old")
    dvc.add(table)
    old = digest(table, "md5")
    assert table.is_symlink() if kind == "symlink" else table.stat().st_nlink == 2
    artifacts.write_text(table, "new")
    dvc.add(table)
    assert dvc.fetch(old).read_text() == "old"
    Path("source").write_text("other contents")
    with Repo() as repository:
        repository.reproduce()
        repository.reproduce(force=True)  # over the read-only output of the first time
    assert result.read_text() == "other contents" and dvc.stale() == []
    table.unlink()
    table.symlink_to(dvc.fetch(old))
    assert dvc.follow(table) and table.read_text() == "new" and dvc.fetch(old).read_text() == "old"


@pytest.mark.parametrize("inside", [True, False])
def test_a_remote_behind_a_link_is_not_in_the_repository(result: Path, tmp_path: Path, inside: bool) -> None:
    """Git adds nothing behind a symbolic link: only what lies in the repository itself is committed with a proposal."""
    folder = (tmp_path / "folder") if inside else tmp_path.parent / f"{tmp_path.name}-outside"
    folder.mkdir()
    (tmp_path / "remote").symlink_to(folder)
    dvc.push()
    found = dvc.tracked_objects([digest(result, "md5")])
    assert [(path.read_text(), path.parts[0]) for path in found] == ([("contents", "folder")] if inside else [])


def test_a_repository_behind_a_link(result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc.push()
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", str(link))
    (kept,) = dvc.tracked_objects([digest(result, "md5")])
    assert dvc.stale() == [] and not kept.is_absolute() and kept.read_text() == "contents"


def test_a_table_that_a_person_replaced_stays(result: Path) -> None:
    table = Path("table")
    table.write_text("old")
    dvc.add(table)
    table.unlink()
    table.write_text("a person's")
    assert not dvc.follow(table)
    assert table.read_text() == "a person's"


def test_the_md5_of_a_folder_is_dvcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a .dvc file; of a pattern it is that of its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/sub").mkdir(parents=True)
    for name in ("b.parquet", "a.parquet", "sub/ü.parquet"):
        (tmp_path / "raw" / name).write_text(name)
    found = artifacts.md5(Path("raw"))
    assert found == artifacts.tracked_md5(Path("raw/")) == artifacts.tracked_md5(Path("raw/*.parquet"))
    with Repo.init(no_scm=True) as repo:
        repo.add("raw")
    assert f"md5: {found}\n" in Path("raw.dvc").read_text()
    (tmp_path / "raw/a.parquet").unlink()  # not pulled, or in part
    assert artifacts.tracked_md5(Path("raw")) == artifacts.tracked_md5(Path("raw/*.parquet")) == found


def test_the_hash_of_an_object_is_that_of_the_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  prepare:\n    cmd: x\n    deps:\n    - path: data/appended.json\n      md5: 1\n"
        "    - path: s3://bucket/raw.parquet\n      size: 3\n      etag: abc-1\n"
        "    outs:\n    - path: x\n      md5: 2\n"
    )
    assert artifacts.tracked_md5(Path("s3://bucket/raw.parquet")) == "abc-1"
    with pytest.raises(FileNotFoundError, match=r"run `make pipeline` first"):
        artifacts.tracked_md5(Path("s3://bucket/other.parquet"))
