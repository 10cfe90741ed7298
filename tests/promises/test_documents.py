"""Promises for collections of documents: exact resume, ranks, fine-tuning as the collection grows.

The order of a list changes nothing, and no file holds the symbol that ends a document.
"""

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charloom.cli.main import main
from charloom.storage.checkpoint import load_checkpoint
from charloom.text.dataset import Split, load_dataset
from charloom.text.vocabulary import END
from helpers.documents import NAMES, collection, shuffled_names
from helpers.faults import Workshop, content_of, posix_only

SMALL = "--lines --threads 1 --hidden-size 8 --batch-size 4 --window 12"
CONFIGURATIONS = {
    "compiled": f"{SMALL} --cell gru --layers 2 --dropout 0.3 --steps 130 --refit 0.4",
    "reference": f"{SMALL} --cell lstm --engine reference --optimizer adam --epochs 2.5 --seed 4",
}
POINTS = (
    "before a step #13",
    "halfway through writing metrics.jsonl #21",
    "before a piece of validation #4",
    "halfway through writing resume.safetensors #30",
    "after renaming to model.safetensors #2",
    "before a step #47",
)


@pytest.fixture
def names(tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path)
    write(workshop.text, shuffled_names())
    return workshop


def write(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(f"{document}\n" for document in documents), encoding="utf-8")
    return path


@posix_only
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_run_killed_inside_a_document_resumes_byte_identical(
    name: str, names: Workshop, tmp_path: Path
) -> None:
    options = f"{CONFIGURATIONS[name]} --validate-every 25"
    names.through(options)

    def kill_and_resume(point: str) -> list[str]:
        folder = tmp_path / point.replace(" ", "-")
        killed_run = names.drive(folder, options, actions={point: "SIGKILL"})
        assert killed_run.returncode == -signal.SIGKILL, killed_run.stderr
        return names.resume_and_compare(folder, options, here=False)

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(POINTS, pool.map(kill_and_resume, POINTS), strict=True))
    assert {point: what for point, what in found.items() if what} == {}


def test_order_of_a_list_changes_nothing(tmp_path: Path) -> None:
    folders = []
    for order, documents in (
        ("sorted", sorted(NAMES)),
        ("reversed", sorted(NAMES, reverse=True)),
        ("shuffled", shuffled_names(7)),
    ):
        path = write(tmp_path / f"{order}.txt", documents)
        folders.append(tmp_path / order)
        options = f"{SMALL} --steps 30".split()
        assert main(["train", str(path), "--out", str(folders[-1]), *options]) == 0
    one, *others = [content_of(folder) for folder in folders]
    for other in others:
        differing = {name for name in one if one[name] != other[name]}
        # The checkpoints name their text, and have its digest.
        assert differing <= {"model.safetensors", "header text"}
        assert one["samples.txt"] == other["samples.txt"]
    (a, b, _) = [load_checkpoint(folder / "model.safetensors") for folder in folders]
    assert (a.parameters.flat == b.parameters.flat).all()


def test_no_file_of_a_run_holds_the_symbol_of_an_end(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    random_ = random.Random(0)
    poems = ["".join(f"{random_.choice(NAMES)}\n" for _ in range(4)) for _ in range(60)]
    for name, documents, option in (
        ("names", NAMES, "--lines"),
        ("poems", [f"{poem}%" for poem in poems], r"--separator=%\n"),
    ):
        path, folder = write(tmp_path / f"{name}.txt", documents), tmp_path / name
        options = [option, *SMALL.split()[1:], "--steps", "60", "--tensorboard"]
        assert main(["train", str(path), "--out", str(folder), *options]) == 0
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert {"metrics.jsonl", "samples.txt", "report.html"} <= {file.name for file in files}
        for file in files:
            data = file.read_bytes()
            assert END.encode("utf-8", "surrogatepass") not in data, file
            if file.suffix not in (".safetensors", ""):
                assert b"udc03" not in data.lower(), file
        samples = (folder / "samples.txt").read_text("utf-8")
        assert ("<end>" in samples) == (name == "poems")


def test_grown_collection_is_refused_to_resume_and_fine_tuned_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = write(tmp_path / "names.txt", shuffled_names()), tmp_path / "names"
    options = [*SMALL.split()[1:], "--steps", "20"]
    assert main(["train", str(path), "--out", str(folder), "--lines", *options]) == 0
    before = load_checkpoint(folder / "model.safetensors").vocabulary
    write(path, [*shuffled_names(1), "yé", "zoë"])
    capsys.readouterr()
    assert main(["train", str(path), "--out", str(folder), "--resume", "--steps", "30"]) == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("charloom: ")
    ]
    assert f"--from {folder} --out {folder}-2`" in line
    grown = tmp_path / "grown"
    words = ["train", str(path), "--out", str(grown), "--lines", "--from", str(folder)]
    assert main([*words, "--steps", "20", "--batch-size", "4", "--window", "12"]) == 0
    after = load_checkpoint(grown / "model.safetensors").vocabulary
    assert after.characters == (*before.characters, "y", "z", "é", "ë")
    assert after.end_id == before.end_id == len(before) - 1


def test_documents_stay_in_their_part_as_the_collection_grows() -> None:
    few = load_dataset(collection(shuffled_names()[:150]), Split())
    more = load_dataset(collection(sorted(NAMES)), Split(), base=few.vocabulary)
    for part in ("train", "validation", "test"):
        before, after = (
            set(few.vocabulary.decode(getattr(dataset, part)).split(END)) for dataset in (few, more)
        )
        assert len(before) > 1
        assert before <= after
