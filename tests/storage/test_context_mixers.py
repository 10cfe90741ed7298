"""A file with a context mixer that is damaged, of another version, or opened without Numba."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from charloom.context_mixing.mixer import ContextMixer
from charloom.context_mixing.packing import array_names, pack
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.ngrams.mixing import Mixture, feature_count
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary
from helpers.checkpoints import Change, changed, tensor, within
from helpers.cli import refusal

VOCABULARY = Vocabulary.of("abcd\n")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    ids = np.random.default_rng(0).integers(0, 5, 400)
    mixer = ContextMixer.empty(VOCABULARY, np.bincount(ids), len(ids))
    mixer.learn(ids)
    parameters = initialize(ModelConfig("gru", 3, 1, 5, extra_inputs=5), 0)
    mixture = Mixture(mixer, np.zeros(feature_count(mixer.context)))
    return Checkpoint(parameters, VOCABULARY, mixture=mixture)


@pytest.fixture(scope="module")
def file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    save_checkpoint(path, checkpoint)
    return path.read_bytes()


def test_a_file_is_loaded_and_saved_again_with_the_same_bytes(file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    loaded = load_checkpoint(path)
    save_checkpoint(path, loaded)
    assert path.read_bytes() == file
    assert loaded.mixture is not None
    assert isinstance(loaded.mixture.counts, ContextMixer)
    assert pack(loaded.mixture.counts).keys() == set(array_names())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (tensor("counts.singles_used", lambda v: v[:-1]), "in its context mixer, its singles_used"),
        (tensor("counts.children", lambda v: v[::-1].copy()), "cannot be decompressed"),
        (tensor("counts.rank", lambda v: v.astype(np.float32)), "counts.rank has type F32"),
        (tensor("counts.shorts_checks", lambda v: v[:-1].copy()), "checks"),
        (lambda _, tensors: tensors.pop("counts.blocks"), "missing tensors: counts.blocks"),
        (within("counts", kind="guesses"), "in its header's counts"),
        (within("counts", layout="0"), "has a context mixer of another version of charloom"),
        (within("counts", context=3), "has a context mixer of another version of charloom"),
        (within("counts", kind="kneser-ney"), "missing tensors: counts.characters"),
    ],
)
def test_damage_and_other_versions_are_refused_in_one_line(
    change: Change, problem: str, file: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(file, change))
    assert problem in refusal("info", str(path))
    assert problem in refusal("sample", str(path), "--length", "5")


def test_without_numba_one_line_names_it(file: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(file)
    code = """
        import sys
        sys.modules["numba"] = None
        from charloom.cli.main import main
        print(main(["info", "model.safetensors"]))
        open("text.txt", "w").write("a line of text\\n" * 2_000)
        few = ["--steps", "1", "--out", "run", "--counts", "context-mixing"]
        print(main(["train", "text.txt", *few]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.split() == ["2", "2"]
    first, second = done.stderr.splitlines()
    assert "has a context mixer, and Numba cannot be imported" in first
    assert "--counts context-mixing needs Numba" in second
