"""Prompts, stop texts, lengths and guards of `charloom sample`."""

import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from helpers.cli import drawn, process, refused, short
from helpers.processes import in_a_new_process
from helpers.runs import FEW
from helpers.texts import WOODS

# --- Drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--report-overlap", "--max-overlap=8"])
def test_overlap_needs_the_training_text(
    tmp_path: Path, trained_run: str, text_file: str, option: str
) -> None:
    moved, changed = tmp_path / "moved.txt", tmp_path / "changed.txt"
    shutil.copy(text_file, moved)
    assert main(["train", str(moved), f"--out={tmp_path / 'run'}", *FEW]) == 0
    moved.rename(tmp_path / "elsewhere.txt")
    changed.write_text("x" + WOODS, encoding="utf-8")
    command = ["sample", str(tmp_path / "run"), "--length=9", "--seed=1", option]
    line = refused(*command)
    assert "moved.txt" in line
    assert "--training-text" in line
    line = refused(*command, f"--training-text={changed}")
    assert "is not the one that the run was trained on" in line
    assert main([*command, f"--training-text={tmp_path / 'elsewhere.txt'}"]) == 0
    line = refused("sample", trained_run, f"--training-text={text_file}")
    assert "--report-overlap" in line


def test_a_training_text_that_is_too_long_is_not_indexed(
    trained_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charloom.evaluation.training_text.LONGEST_TO_INDEX", 1000)
    line = refused("sample", trained_run, "--max-overlap=9")
    assert f"{len(WOODS):,} characters" in line
    assert "1,000" in line


def test_unknown_prompt_character_is_named_and_can_be_skipped(
    capfdbinary: pytest.CaptureFixture[bytes], trained_run: str
) -> None:
    assert main(["sample", trained_run, "--prompt", "The w~~d§"]) == 2
    (line,) = capfdbinary.readouterr().err.decode().splitlines()
    assert "'~' (U+007E TILDE)" in line
    assert "position 5" in line
    assert "--skip-unknown" in line
    common = [trained_run, "--length=20", "--seed=1"]
    skipped = drawn(capfdbinary, *common, "--prompt", "The w~~d§", "--skip-unknown")
    plain = drawn(capfdbinary, *common, "--prompt", "The wd")
    assert skipped[-20:] == plain[-20:]
    assert main(["sample", *common, "--prompt", "The w~~d§", "--skip-unknown"]) == 0
    assert b"3 unknown characters of the prompt" in capfdbinary.readouterr().err


@pytest.mark.parametrize("prompt", ["\udcff", "\x1b[2J", "\0", "a\nQ", "\u202e"])
def test_odd_prompt_is_reported_on_one_line(trained_run: str, prompt: str) -> None:
    line = refused("sample", trained_run, "--prompt", prompt)
    assert "--skip-unknown" in line
    assert main(["sample", trained_run, "--prompt", prompt, "--skip-unknown", "--length=3"]) == 0


def test_a_prompt_for_a_model_of_bytes_is_read_as_bytes(
    capfdbinary: pytest.CaptureFixture[bytes], text_file: str
) -> None:
    assert main(["train", text_file, "--bytes", "--out=run", *FEW]) == 0
    capfdbinary.readouterr()
    assert main(["sample", "run", "--prompt", "schön 字", "--length=9", "--seed=1"]) == 0
    out = capfdbinary.readouterr().out
    assert out.startswith("schön 字".encode())
    assert len(out) == len("schön 字".encode()) + 9


def test_a_stop_text_for_a_model_of_bytes_is_read_as_bytes(
    capfdbinary: pytest.CaptureFixture[bytes], text_file: str
) -> None:
    assert main(["train", text_file, "--bytes", "--out=run", *FEW]) == 0
    common = ["sample", "run", "--length=5000", "--seed=1"]
    capfdbinary.readouterr()
    assert main(common) == 0
    whole = capfdbinary.readouterr().out
    end = whole.find("ö".encode())
    assert end > 0, "the sample must hold what stops it"
    assert main([*common, "--stop=ö"]) == 0
    assert capfdbinary.readouterr().out == whole[:end]


@pytest.mark.parametrize("name", ["nowhere", "", "empty", "file", "folder-in-its-place"])
def test_a_run_without_a_model_is_refused(name: str) -> None:
    Path("empty").mkdir()
    Path("file").write_text("no model", encoding="utf-8")
    Path("folder-in-its-place/model.safetensors").mkdir(parents=True)
    for command in ("sample", "evaluate", "info"):
        line = refused(command, name)
        assert (name or ".") in line


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "nowhere", ""], ids=short)
def test_missing_run_is_refused_in_python(name: str) -> None:
    with pytest.raises(CharloomError):
        charloom.load(name)


def test_a_sample_imports_no_compiler_and_nothing_of_rare_options(trained_run: str) -> None:
    code = f"""
        import sys
        import charloom
        model = charloom.load({trained_run!r})
        model.sample(length=10)
        rare = {{"numba", "llvmlite", "scipy", "urllib.request", "subprocess"}}
        inside = "constraints.options", "text.corpora", "text.tables", "ngrams.kneser_ney"
        inside += "engines.reference", "prediction.side_by_side", "evaluation.evaluation"
        rare |= {{f"charloom.{{name}}" for name in inside}}
        print(sorted(rare & set(sys.modules)))
    """
    in_a_new_process(code)  # which may compile a kernel
    done = in_a_new_process(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_sample_has_the_requested_length(
    capfdbinary: pytest.CaptureFixture[bytes], trained_run: str
) -> None:
    found = process("sample", trained_run, "--length=200", "--seed=7")
    assert (found.returncode, found.stderr) == (0, b"")
    assert len(found.stdout.decode()) == 200
    again = drawn(capfdbinary, trained_run, "--length=200", "--seed=7")
    assert again.encode() == found.stdout
    assert drawn(capfdbinary, trained_run, "--length=0", "--seed=7") == ""
    unseeded = process("sample", trained_run, "--length=200")
    assert len(unseeded.stdout.decode()) == 200
    (seed,) = re.findall(r"^charloom: seed (\d+)$", unseeded.stderr.decode(), re.MULTILINE)
    assert (
        drawn(capfdbinary, trained_run, "--length=200", f"--seed={seed}").encode()
        == unseeded.stdout
    )


def test_a_stop_text_ends_the_sample_and_is_left_out(
    capfdbinary: pytest.CaptureFixture[bytes], trained_run: str
) -> None:
    common = [trained_run, "--length=3000", "--seed=7"]
    whole = drawn(capfdbinary, *common)
    for stops in (["e"], [whole[100:103]], ["\n", "字"], [whole[-3:]], ["never here"]):
        end = min([whole.find(stop) for stop in stops if stop in whole], default=len(whole))
        options = [word for stop in stops for word in ("--stop", stop)]
        assert drawn(capfdbinary, *common, *options) == whole[:end]


def test_first_of_many_samples_does_not_wait(trained_run: str) -> None:
    """The first of a billion samples does not wait for the others."""
    sampling = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "charloom",
            "sample",
            trained_run,
            "--count=1000000000",
            "--length=5",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert sampling.stdout is not None
        ready, _, _ = select.select([sampling.stdout], [], [], 8)
        assert ready
    finally:
        sampling.kill()
        sampling.communicate()
