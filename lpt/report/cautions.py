"""What a reader must know before trusting a comparison: runs that differ where they should not, or cannot be read."""

from collections import defaultdict
from collections.abc import Sequence

from lpt.report.listing import OUTDATED
from lpt.report.runs import Run
from lpt.training.result import CompletedRun, Fewshot


def find_cautions(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each thing that differs between the completed runs and should not."""
    results = [run.result for run in runs if run.result]
    return [*_rows(results), *_versions(results), *_code(results), *_machines(runs)]


def caution_outdated(runs: Sequence[Run]) -> list[str]:
    """Return one sentence for all runs whose results are of an older format, if there are any."""
    outdated = [run for run in runs if run.status == OUTDATED]
    if not outdated:
        return []
    names = ", ".join(run.name for run in outdated[:3]) + (", ..." if len(outdated) > 3 else "")
    which = f"{len(outdated)} {'run was' if len(outdated) == 1 else 'runs were'} written by another version of lpt"
    return [f"{which}, whose result.json this one does not read ({names}): left out; run them again to see them."]


def hardware_of(result: CompletedRun) -> str:
    """Return what a run computed on, such as `2 x NVIDIA H200`."""
    hardware = result.hardware
    threads = f", {hardware.threads} threads" if hardware.threads else ""
    return f"{hardware.devices} x {hardware.device}{threads}"


def commit_of(result: CompletedRun) -> str:
    """Return the commit of the code, shortened."""
    if result.git is None:
        return "not a git checkout"
    return result.git.commit[:10] + (", changed" if result.git.changed else "")


def _rows(results: Sequence[CompletedRun]) -> list[str]:
    test_sets: dict[str, set[str]] = defaultdict(set)
    training: dict[tuple[str, Fewshot], set[str]] = defaultdict(set)
    for result in results:
        fingerprint = result.data.fingerprint
        test_sets[result.task].add(str(fingerprint.get("test")))
        training[result.task, result.fewshot].add(str(fingerprint.get("train")))
    return [
        f"The runs of {task} were tested on {len(sets)} different sets of rows ({', '.join(sorted(sets))}); "
        "runs of different sets are not compared."
        for task, sets in test_sets.items()
        if len(sets) > 1
    ] + [
        f"{task}: the same few-shot sample (fewshot={few.protocol}, seed {few.seed}) gave different training rows in "
        f"different runs ({', '.join(sorted(sets))}); did the data change?"
        for (task, few), sets in training.items()
        if len(sets) > 1
    ]


def _versions(results: Sequence[CompletedRun]) -> list[str]:
    versions: dict[str, set[str]] = defaultdict(set)
    for result in results:
        for package, version in result.versions.items():
            versions[package].add(version)
    return [
        f"Runs of different versions of {package}: {', '.join(sorted(several))}."
        for package, several in versions.items()
        if len(several) > 1
    ]


def _code(results: Sequence[CompletedRun]) -> list[str]:
    commits = sorted({commit_of(result) for result in results})
    if len(commits) > 1:
        return [f"Runs of different states of the code: {', '.join(commits)}."]
    if any(result.git and result.git.changed for result in results):
        return [f"The code had uncommitted changes ({', '.join(commits)})."]
    return []


def _machines(runs: Sequence[Run]) -> list[str]:
    found = []
    completed = [(run, run.result) for run in runs if run.result]
    precisions = sorted({result.precision for _, result in completed})
    chosen = {str(run.options.get("trainer.precision")) for run, _ in completed}
    if len(precisions) > 1 and len(chosen) == 1:
        found.append(f"Runs in different number formats ({', '.join(precisions)}): do not compare their costs.")
    machines = sorted({hardware_of(result) for _, result in completed})
    if len(machines) > 1:
        found.append(f"Runs on different hardware ({'; '.join(machines)}): do not compare their times.")
    return found
