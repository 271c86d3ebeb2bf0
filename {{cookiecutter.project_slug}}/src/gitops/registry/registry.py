"""Mirror the release log in MLflow's registered model (`make register`): a version for each release, and two aliases.

`champion` names the release that env/production holds, whether a release, a rollback, a revert or a promotion brought
it there. `challenger` names the workspace's model if it comes from a commit, the gate accepted it and production never
held it; once released, it is a challenger no more. Git is the source of truth and the registry its mirror: no failure
here stops or undoes a release, and a rerun completes what an earlier run left half-done.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from tqdm import tqdm

from gitops.core import params
from gitops.core.artifacts import GATE, ProjectError, read_json, run
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.design import model_card
from gitops.integrations import git, kustomize, tracking
from gitops.registry.versions import DESCRIPTION, Versions, unpacked
from gitops.releases import history, release, workspace
from gitops.releases.history import Released
from gitops.releases.record import Candidate, GateResult
from gitops.releases.release import BRANCH

CHAMPION = "champion"
CHALLENGER = "challenger"

#: Tags of a version that is a release: the commit of env/production that first held it, and history's State of it.
RELEASE = "release"
STATE = "state"
SHA256 = "model_sha256"

#: Tag of a version that holds its model card. The description, which MLflow shows, has room for its first sections; the
#: version's files are no place for it, as two releases of one model share them.
CARD = "model_card"

#: The tags of each version, by its number.
Known = dict[int, dict[str, str]]


@dataclass
class Mirror:
    """The registry after `sync`: versions by their number."""

    releases: dict[str, int] = field(default_factory=dict)  # commit of env/production -> version
    missing: dict[str, str] = field(default_factory=dict)  # commit of env/production -> why it has no version
    created: int = 0
    champion: int | None = None
    challenger: int | None = None
    no_challenger: str = ""  # why the workspace's model is none


def main() -> None:
    """Mirror the release log, and print what the aliases name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kustomize.add_image_option(parser)
    settings = params.load()
    mirror = sync(settings, parser.parse_args().image)
    name = settings.package.model_name
    echo(f"{name} in MLflow at {tracking.address()}: {len(mirror.releases)} releases, {mirror.created} new versions")
    for alias, version in ((CHAMPION, mirror.champion), (CHALLENGER, mirror.challenger)):
        echo(f"{alias}: {f'version {version}' if version else 'none'}")
    if mirror.no_challenger:
        echo(f"The workspace's model is no new challenger: {mirror.no_challenger}")


def sync(settings: Params, image: str | None = None) -> Mirror:
    """Make the registered model `package.model_name` mirror the release log and the workspace's candidate.

    Raises ProjectError where origin or MLflow cannot be reached. Where the deployed model is in neither MLflow nor DVC,
    it removes the alias, completes the rest and then raises: an alias of another model is worse than none.
    """
    history.require_full_clone()
    present = release.production()
    releases = history.releases(history.read(present.commit)) if present else []
    candidate = new_challenger(settings, image, releases)
    mirror = Mirror(no_challenger=candidate if isinstance(candidate, str) else "")
    if not releases and mirror.no_challenger:
        echo(f"Nothing was ever released to {BRANCH}.")
        return mirror
    deployed = history.deployed(releases)
    with tracking.errors():
        registry = Versions(settings)
        registry.claim(git.run("rev-list", "--max-parents=0", "--first-parent", "HEAD"))
        known = registry.all()
        for released in tqdm(releases, desc="register", unit="release", disable=None):
            _mirror_release(registry, known, released, mirror)
        if deployed:
            mirror.champion = mirror.releases.get(deployed.first.commit)
        registry.set_alias(CHAMPION, mirror.champion)
        _mirror_candidate(settings, registry, known, candidate, mirror)
    if deployed and mirror.champion is None:
        raise ProjectError(f"{CHAMPION} names no version: {mirror.missing[deployed.first.commit]}")
    return mirror


def new_challenger(settings: Params, image: str | None, releases: list[Released]) -> tuple[Candidate, GateResult] | str:
    """Return the workspace's model and the gate's result for it, or the reason why it is no challenger."""
    try:
        result = read_json(GATE, "make gate")
        candidate = workspace.candidate(settings, image)
    except ProjectError as error:
        return str(error)
    if changed := workspace.uncommitted():
        return f"{', '.join(changed[:5])} differ from the commit"
    if result["model_sha256"] != candidate.model.sha256:
        return f"{GATE} is about another model: run `make gate` again"
    if result["accepted"] is not True:
        return str(result["reason"])
    if any(one.record.model.sha256 == candidate.model.sha256 for one in releases):
        return f"{candidate.title} was released already"
    deployed = history.deployed(releases)
    newest = deployed.record.commit if deployed else ""
    if newest and git.exists(newest) and git.is_ancestor(candidate.commit, newest):
        return f"production runs commit {newest[:12]}, which is not older than {candidate.commit[:12]}"
    return candidate, GateResult.model_validate(result)


def tags(candidate: Candidate, result: GateResult) -> dict[str, str]:
    """Return a version's tags; its metrics and parameters are those of its run."""
    return {
        SHA256: candidate.model.sha256,
        "commit": candidate.commit,
        "data_md5": candidate.data_md5,
        "image": candidate.image,
        "gate": f"{'accepted' if result.accepted else 'refused'} ({result.mode})",
        "gate_reason": result.reason,
        "trained_in_run": candidate.mlflow_run_id or "none",
    }


def description(card: str) -> str:
    """Return what MLflow shows of a version with this model card."""
    return model_card.excerpt(card, DESCRIPTION, f"*The whole card is the tag `{CARD}` of this version.*")


def _mirror_release(registry: Versions, known: Known, released: Released, mirror: Mirror) -> None:
    """Find the version of a release by its tags, or take over its candidate's version, or create one."""
    commit, record = released.first.commit, released.record
    # `release` comes last: a version that was left half-tagged is still the candidate's, and found again as such.
    wanted = tags(record, record.gate) | {STATE: released.state, RELEASE: commit}
    own = [number for number, its in known.items() if its.get(RELEASE) == commit]
    if not any(CARD in known[number] for number in own) and (card := release.card(commit)):
        wanted = {CARD: card} | wanted
    try:
        matching = own or _candidates(known, record)
        mirror.releases[commit] = _put(registry, known, matching, record, wanted, mirror)
    except ProjectError as error:
        mirror.missing[commit] = f"{record.title}, commit {commit[:12]} of {BRANCH}: {error}"
        echo(f"no version for {mirror.missing[commit]}", error=True)


def _mirror_candidate(
    settings: Params,
    registry: Versions,
    known: Known,
    candidate: tuple[Candidate, GateResult] | str,
    mirror: Mirror,
) -> None:
    """Point `challenger` at the workspace's model, if it is one; else remove it from a version that was released."""
    if not isinstance(candidate, str):
        matching = _candidates(known, candidate[0])
        card = model_card.compose(model_card.gather(settings, [], candidate[0].commit))
        version = _put(registry, known, matching, candidate[0], {CARD: card} | tags(*candidate), mirror)
        registry.set_alias(CHALLENGER, version)
    elif RELEASE in known.get(registry.aliases().get(CHALLENGER, 0), {}):
        registry.set_alias(CHALLENGER, None)
    mirror.challenger = registry.aliases().get(CHALLENGER)


def _candidates(known: Known, candidate: Candidate) -> list[int]:
    sha256 = candidate.model.sha256
    return [number for number, its in known.items() if its.get(SHA256) == sha256 and RELEASE not in its]


def _put(
    registry: Versions, known: Known, matching: list[int], candidate: Candidate, wanted: dict[str, str], mirror: Mirror
) -> int:
    """Update the first of `matching`, or create a version where there is none; return its number."""
    text = description(wanted[CARD]) if CARD in wanted else None
    if matching:
        present = known[matching[0]]
        changed = {key: value for key, value in wanted.items() if present.get(key) != value}
        if text and CARD in changed:  # the description first: with the tag it is known to be there
            registry.describe(matching[0], text)
        registry.tag(matching[0], changed)
        known[matching[0]] = present | wanted
        return matching[0]
    logged = registry.logged(candidate)
    if logged is None:
        with unpacked(candidate) as folder:
            logged = registry.log(candidate, folder)
    version = registry.create(*logged, wanted, text)
    known[version] = wanted
    mirror.created += 1
    return version


if __name__ == "__main__":
    run(main)
