"""Make MLflow's registered model say what Git says (`make register`): a version for each release, and two aliases.

`champion` names the release that env/production holds, whatever brought it there: a release, a rollback, a revert, a
promotion. `challenger` names the workspace's model, where it is of a commit, the gate has accepted it and production
never held it; released, it is a challenger no more. Git is the truth and the registry its mirror: nothing here can stop
or undo a release, and a rerun completes what an earlier one has left half-done.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from gitops.core import artifacts, params
from gitops.core.artifacts import GATE, MODEL, ProjectError, read_json, run
from gitops.core.params import Params
from gitops.deployment import deploy
from gitops.integrations import dvc, git, kustomize, tracking
from gitops.registry.versions import Versions, reached
from gitops.releases import history, release
from gitops.releases.release import BRANCH, Candidate, Verdict

CHAMPION = "champion"
CHALLENGER = "challenger"

#: Tags of a version that is a release: the commit of env/production which first held it, and what has become of it.
RELEASE = "release"
STATE = "state"
SHA256 = "model_sha256"

#: The tags of each version, by its number.
Known = dict[int, dict[str, str]]


@dataclass
class Mirror:
    """What the registry holds: versions by their number."""

    releases: dict[str, int] = field(default_factory=dict)  # commit of env/production -> version
    missing: dict[str, str] = field(default_factory=dict)  # likewise -> why it has none
    made: int = 0
    champion: int | None = None
    challenger: int | None = None
    no_challenger: str = ""  # why the workspace holds none


def main() -> None:
    """Mirror the release log, and print what the aliases name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_image_option(parser)
    settings = params.load()
    mirror = sync(settings, parser.parse_args().image)
    name = settings.package.model_name
    print(f"{name} in MLflow at {tracking.address()}: {len(mirror.releases)} releases, {mirror.made} versions new")
    for alias, version in ((CHAMPION, mirror.champion), (CHALLENGER, mirror.challenger)):
        print(f"{alias}: {f'version {version}' if version else 'none'}")
    if mirror.no_challenger:
        print(f"The workspace holds no new challenger: {mirror.no_challenger}")


def sync(settings: Params, image: str | None = None) -> Mirror:
    """Make the registered model `package.model_name` mirror the release log and the workspace's candidate.

    Raises ProjectError where origin or MLflow cannot be reached, and, with the alias removed and all else done, where
    the model that runs is neither in MLflow nor in DVC: an alias that names another model is worse than none.
    """
    history.whole()
    present = release.production()
    releases = history.releases(history.read(present.commit)) if present else []
    candidate = newest(settings, image, releases)
    mirror = Mirror(no_challenger=candidate if isinstance(candidate, str) else "")
    if not releases and mirror.no_challenger:
        print(f"Nothing was ever released to {BRANCH}.")
        return mirror
    with reached():
        registry = Versions(settings)
        registry.claim(git.run("rev-list", "--max-parents=0", "--first-parent", "HEAD"))
        known = registry.all()
        for released in tqdm(releases, desc="register", unit="release", disable=None):
            _mirror_release(registry, known, released, mirror)
        if present:
            running = next(one for one in releases if one.state == "runs")
            mirror.champion = mirror.releases.get(running.first.commit)
        registry.point(CHAMPION, mirror.champion)
        _mirror_candidate(registry, known, candidate, mirror)
    if present and mirror.champion is None:
        raise ProjectError(f"{CHAMPION} names no version: {mirror.missing[running.first.commit]}")
    return mirror


def newest(settings: Params, image: str | None, releases: list[history.Released]) -> tuple[Candidate, Verdict] | str:
    """Return the workspace's model with the gate's word on it, or why that is no challenger."""
    try:
        verdict = read_json(GATE, "make gate")
        candidate = deploy.up_to_date(settings, image)
    except ProjectError as error:
        return str(error)
    running = next((one.record for one in releases if one.state == "runs"), None)
    if changed := [path for path in git.changes() if path not in deploy.DERIVED]:
        return f"{', '.join(changed[:5])} differ from the commit"
    if verdict["model_sha256"] != candidate.model.sha256:
        return f"{GATE} is about another model: run `make gate` again"
    if verdict["accepted"] is not True:
        return str(verdict["reason"])
    if any(one.record.model.sha256 == candidate.model.sha256 for one in releases):
        return f"{candidate.title} was released already"
    if running and git.exists(running.commit) and git.is_ancestor(candidate.commit, running.commit):
        return f"production comes from {running.commit[:12]}, which holds {candidate.commit[:12]}"
    return candidate, Verdict.model_validate(verdict)


def tags(candidate: Candidate, verdict: Verdict) -> dict[str, str]:
    """Return what a version says about itself; its metrics and parameters are its run's."""
    return {
        SHA256: candidate.model.sha256,
        "commit": candidate.commit,
        "data_md5": candidate.data.md5,
        "image": candidate.image,
        "gate": f"{'accepted' if verdict.accepted else 'refused'} ({verdict.mode})",
        "gate_reason": verdict.reason,
        "trained_in_run": candidate.mlflow_run_id or "none",
    }


def _mirror_release(registry: Versions, known: Known, released: history.Released, mirror: Mirror) -> None:
    """Find the version of a release by its tags, or adopt the candidate's that it was, or make one."""
    commit, record = released.first.commit, released.record
    # `release` comes last: a version that was left half-tagged is still the candidate's, and found again as that.
    wanted = tags(record, record.gate) | {STATE: released.state, RELEASE: commit}
    ours = [number for number, its in known.items() if its.get(RELEASE) == commit] or _candidates(known, record)
    try:
        mirror.releases[commit] = _put(registry, known, ours, record, wanted, mirror)
    except ProjectError as error:
        mirror.missing[commit] = f"{record.title}, commit {commit[:12]} of {BRANCH}: {error}"
        print(f"no version for {mirror.missing[commit]}", file=sys.stderr)


def _mirror_candidate(
    registry: Versions, known: Known, candidate: tuple[Candidate, Verdict] | str, mirror: Mirror
) -> None:
    """Let `challenger` name the workspace's model, if it is one; else take it from a version that was released."""
    if not isinstance(candidate, str):
        ours = _candidates(known, candidate[0])
        version = _put(registry, known, ours, candidate[0], tags(*candidate), mirror)
        registry.point(CHALLENGER, version)
    elif RELEASE in known.get(registry.aliases().get(CHALLENGER, 0), {}):
        registry.point(CHALLENGER, None)
    mirror.challenger = registry.aliases().get(CHALLENGER)


def _candidates(known: Known, candidate: Candidate) -> list[int]:
    sha256 = candidate.model.sha256
    return [number for number, its in known.items() if its.get(SHA256) == sha256 and RELEASE not in its]


def _put(
    registry: Versions, known: Known, ours: list[int], candidate: Candidate, wanted: dict[str, str], mirror: Mirror
) -> int:
    """Bring the tags of the first of `ours` up to date, or make a version where there is none; return its number."""
    if ours:
        present = known[ours[0]]
        registry.tag(ours[0], {key: value for key, value in wanted.items() if present.get(key) != value})
        known[ours[0]] = present | wanted
        return ours[0]
    logged = registry.logged(candidate)
    if logged is None:
        with _unpacked(candidate) as folder:
            logged = registry.log(candidate, folder)
    version = registry.create(*logged, wanted)
    known[version] = wanted
    mirror.made += 1
    return version


@contextmanager
def _unpacked(candidate: Candidate) -> Iterator[Path]:
    """Yield a folder with the contents of the model's archive: the workspace's, or DVC's by its md5.

    Raises ProjectError where there is none, or where the model in it is not this one.
    """
    archive = Path(candidate.package.path)
    if not archive.exists() or artifacts.digest(archive, "md5") != candidate.package.md5:
        archive = dvc.fetch(candidate.package.md5)
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        try:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
            found = artifacts.digest(Path(folder, MODEL.name))
        except (zipfile.BadZipFile, OSError) as error:
            raise ProjectError(f"the archive {candidate.package.md5} cannot be read: {error}") from error
        if found != candidate.model.sha256:
            raise ProjectError(f"the archive {candidate.package.md5} holds another model, {found[:12]}")
        yield Path(folder)


if __name__ == "__main__":
    run(main)
