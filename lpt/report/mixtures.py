"""What differs between runs that are shown side by side, and should not."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lpt.report.runs import Run


def find_mixtures(runs: Sequence[Run]) -> list[str]:
    """What differs between the completed runs and should not."""
    completed = [run for run in runs if run.status == "completed"]
    found = []
    test_sets: dict[str, set[str]] = defaultdict(set)
    training: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for run in completed:
        fingerprint = run.result.get("data", {}).get("fingerprint", {})
        test_sets[run.task].add(str(fingerprint.get("test")))
        few = (run.options.get(f"fewshot.{name}") for name in ("protocol", "k", "k_dev", "seed"))
        training[run.task, *few].add(str(fingerprint.get("train")))
    for task, sets in test_sets.items():
        if len(sets) > 1:
            found.append(
                f"The runs of {task} were tested on {len(sets)} different sets of rows ({', '.join(sorted(sets))}); "
                "runs of different sets are not compared."
            )
    for (task, protocol, _, _, seed), sets in training.items():
        if len(sets) > 1:
            found.append(
                f"{task}: the same draw (fewshot={protocol}, seed {seed}) gave different training rows in different "
                f"runs ({', '.join(sorted(sets))}); did the data change?"
            )
    versions: dict[str, set[str]] = defaultdict(set)
    for run in completed:
        for package, version in run.result.get("versions", {}).items():
            versions[package].add(version)
    for package, several in versions.items():
        if len(several) > 1:
            found.append(f"Runs of different versions of {package}: {', '.join(sorted(several))}.")
    commits = {commit_of(run) for run in completed}
    if len(commits) > 1:
        found.append(f"Runs of different states of the code: {', '.join(sorted(commits))}.")
    elif any("changed" in commit for commit in commits):
        found.append(f"The code had uncommitted changes ({', '.join(commits)}).")
    precisions = {str(run.result.get("precision")) for run in completed}
    if len(precisions) > 1 and len({str(run.options.get("trainer.precision")) for run in completed}) == 1:
        found.append(f"Runs in different number formats ({', '.join(sorted(precisions))}): do not compare their costs.")
    machines = {hardware_of(run) for run in completed}
    if len(machines) > 1:
        found.append(f"Runs on different hardware ({'; '.join(sorted(machines))}): do not compare their times.")
    return found


def hardware_of(run: Run) -> str:
    """What the run computed on, such as `2 x NVIDIA H200`."""
    hardware = run.result.get("hardware")
    if not hardware:
        return "not recorded"
    threads = f", {hardware['threads']} threads" if hardware["threads"] else ""
    return f"{hardware['devices']} x {hardware['device']}{threads}"


def commit_of(run: Run) -> str:
    """Of the code, shortened."""
    git = run.result.get("git")
    if not git:
        return "not a git checkout"
    return git["commit"][:10] + (", changed" if git.get("changed") else "")
