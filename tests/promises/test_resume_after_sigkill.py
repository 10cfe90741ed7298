"""Killed (SIGKILL) at any moment, a run ends byte for byte like one that ran through.

Halfway through a write and between two renames too, --resume ends in the same weights, optimizer
state, samples and metrics; only times may differ.
"""

import random
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charloom.storage.checkpoint import load_checkpoint
from helpers.faults import CONFIGURATIONS, SENTENCES, SMALL, Workshop, generated_text, posix_only


def sampled(points: Sequence[str], share: int) -> list[str]:
    """A share of the kinds of points, each at a moment of the run that is chosen by chance, but
    always the same; and in the last validation, between the renames of its two files.

    Between the point after one thing and the point before the next nothing happens to a file.
    """
    chance = random.Random(share)
    kinds: dict[str, list[str]] = {}
    for point in points:
        if not point.startswith("after"):
            kinds.setdefault(point.partition(" #")[0], []).append(point)
    chosen = [chance.choice(kinds[kind]) for kind in sorted(kinds)[share :: len(CONFIGURATIONS)]]
    last = max(n for n, point in enumerate(points) if point.startswith("after writing samples.txt"))
    renames = [point for point in points[last:] if point.startswith("before renaming to")]
    return [renames[1], *chosen]


@posix_only
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_resume_after_sigkill_is_byte_identical(
    name: str, workshop: Workshop, tmp_path: Path
) -> None:
    options = CONFIGURATIONS[name]

    def kill_and_go_on(point: str) -> list[str]:
        folder = tmp_path / point.replace(" ", "-")
        killed_run = workshop.drive(folder, options, actions={point: "SIGKILL"})
        assert killed_run.returncode == -signal.SIGKILL, killed_run.stderr
        return workshop.resume_and_compare(folder, options, here=False)

    chosen = sampled(workshop.points(options), list(CONFIGURATIONS).index(name))
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(chosen, pool.map(kill_and_go_on, chosen), strict=True))
    assert {point: what for point, what in found.items() if what} == {}


@posix_only
def test_resume_after_repeated_sigkill_is_byte_identical(
    workshop: Workshop, tmp_path: Path
) -> None:
    options, folder = CONFIGURATIONS["lstm"], tmp_path / "run"
    for resume, point in (
        ("", "halfway through writing metrics.jsonl #9"),
        (" --resume", "after cutting metrics.jsonl #1"),
        (" --resume", "halfway through writing resume.safetensors #6"),
        (" --resume", "before unlinking #1"),
        (" --resume", "after renaming to model.safetensors #1"),
    ):
        killed_run = workshop.drive(folder, options + resume, actions={point: "SIGKILL"})
        assert killed_run.returncode == -signal.SIGKILL, killed_run.stderr
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
@pytest.mark.parametrize("point", ["before a step #9", "before writing samples.txt #2"])
def test_resume_after_sigkill_between_report_and_validation(
    point: str, workshop: Workshop, tmp_path: Path
) -> None:
    # In a longer run not every step is reported: this validation, after step 9, tells the loss
    # that was reported after step 8.
    options, folder = f"{SMALL} --steps 220 --validate-every 9", tmp_path / "run"
    killed_run = workshop.drive(folder, options, actions={point: "SIGKILL"})
    assert killed_run.returncode == -signal.SIGKILL, killed_run.stderr
    assert workshop.resume_and_compare(folder, options) == []


@posix_only
def test_files_are_synced_before_they_are_renamed(workshop: Workshop) -> None:
    # What a power cut would show and no kill can: each file is synced, renamed, and its name too.
    points = [point.partition(" #")[0] for point in workshop.points(CONFIGURATIONS["gru"])]
    renames = [n for n, point in enumerate(points) if point.startswith("before renaming to")]
    assert len(renames) > 24
    for number in renames:
        name = points[number].rpartition(" ")[2]
        written = number - points[number::-1].index(f"after writing {name}")
        assert "after syncing a file" in points[written:number]
        assert points[number + 1 : number + 3] == [
            f"after renaming to {name}",
            "before syncing a folder",
        ]
        if name == "resume.safetensors":  # it tells how long the two texts are
            made = number - points[number::-1].index(f"before making a temporary {name}")
            assert points[made - 4 : made].count("after syncing a file") == 2


@posix_only
@pytest.mark.parametrize("point", ["after renaming to model.safetensors #1", "before a step #11"])
def test_fine_tuning_resumes_byte_identical(
    point: str, finished_run: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path_factory.mktemp("other"))
    sentences = (*SENTENCES, "Ça va? — Déjà 1 × 2 = 3!\n")
    workshop.text.write_text(generated_text(sentences, 48, seed=3), encoding="utf-8")
    options = f"--from {finished_run} --batch-size 4 --window 8 --steps 12 --validate-every 5"
    folder = tmp_path / "run"
    killed_run = workshop.drive(folder, options, actions={point: "SIGKILL"})
    assert killed_run.returncode == -signal.SIGKILL, killed_run.stderr
    workshop.through(options)
    if "step" in point:
        shutil.rmtree(finished_run)  # what was saved needs nothing else
        base = None
    else:
        base = load_checkpoint(finished_run / "model.safetensors")
    assert workshop.resume_and_compare(folder, options) == []
    if base is not None:
        known = base.vocabulary.characters
        found = load_checkpoint(folder / "model.safetensors").vocabulary.characters
        assert found[: len(known)] == known
        added = set(workshop.text.read_text(encoding="utf-8")) - set(known)
        assert found[len(known) :] == tuple(sorted(added))
        assert "é" in added
