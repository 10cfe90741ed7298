r"""Prompts from files, escapes such as \n, impossible stop texts, and options without effect."""

import gzip
import json
from pathlib import Path

import pytest

import charloom
from charloom.cli.main import main
from helpers.cli import in_place_of_standard_input, process, refused, run
from helpers.runs import FEW, train_tiny
from helpers.texts import WOODS

CODE = 'print("The woods\\n are lovely\\t dark")\n' * 40  # knows the backslash


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a book, of lines, of bytes, of code and of Windows line breaks."""
    folder = tmp_path_factory.mktemp("models")
    train_tiny(folder, WOODS, *FEW, name="book")
    train_tiny(folder, WOODS, *FEW, "--lines", name="lines")
    train_tiny(folder, WOODS, *FEW, "--bytes", name="bytes")
    train_tiny(folder, CODE, *FEW, file="code.txt", name="code")
    return folder


def sampled(run_folder: Path, *arguments: str) -> tuple[str, str]:
    """Return the standard output and standard error of a sample."""
    status, output, errors = run("sample", str(run_folder), "--length=20", "--seed=1", *arguments)
    assert status == 0, errors
    return output, errors


# --- Prompts from files ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["book", "bytes", "code"])
def test_a_prompt_file_is_a_prompt_with_its_last_line_break(models: Path, model: str) -> None:
    prompt = "The woods\n" if model == "code" else "und schön\nThe woods\n"
    Path("p.txt").write_bytes(prompt.encode())
    from_file = sampled(models / model, "--prompt-file", "p.txt")
    assert from_file == sampled(models / model, "--prompt", prompt)
    assert from_file[0].startswith(prompt)
    assert from_file != sampled(models / model, "--prompt", prompt.rstrip("\n"))
    several = sampled(models / model, "--prompt-file", "p.txt", "--count=2", "--json")[0]
    assert [json.loads(line)["text"][: len(prompt)] for line in several.splitlines()] == [
        prompt
    ] * 2


def test_a_prompt_file_is_read_as_a_text_of_the_model(models: Path) -> None:
    expected = sampled(models / "book", "--prompt", "und schön\n")
    Path("marked.txt").write_bytes("\ufeffund scho\u0308n\r\n".encode())
    Path("packed.txt.gz").write_bytes(gzip.compress(b"und sch\xc3\xb6n\n"))
    for name in ("marked.txt", "packed.txt.gz"):
        assert sampled(models / "book", "--prompt-file", name)[0] == expected[0]
    Path("line.txt").write_bytes(b"und\n")
    one_line = sampled(models / "lines", "--prompt-file", "line.txt")
    assert one_line == sampled(models / "lines", "--prompt", "und")
    Path("raw").write_bytes(b"sch\xc3")
    found = process("sample", str(models / "bytes"), "--seed=1", "--length=3", "--prompt-file=raw")
    assert found.stdout.startswith(b"sch\xc3")
    assert len(found.stdout) == 7


def test_a_prompt_from_standard_input(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place_of_standard_input(monkeypatch, b"The woods\n")
    found = sampled(models / "book", "--prompt-file", "-")
    assert found == sampled(models / "book", "--prompt", "The woods\n")
    long = b"The woods are lovely\n" * 20_000  # more than a command line can hold
    arguments = ["--prompt-file=-", "--no-prompt", "--seed=1", "--length=30"]
    found_long = process("sample", str(models / "book"), *arguments, stdin=long)
    assert (found_long.returncode, found_long.stderr) == (0, b"")
    assert len(found_long.stdout.decode()) == 30


def test_bad_prompt_files_are_refused(models: Path) -> None:
    book = str(models / "book")
    Path("p.txt").write_text("The\n")
    Path("empty.txt").touch()
    Path("folder").mkdir()
    Path("unknown.txt").write_text("The §\n")
    Path("python-docs").mkdir()
    for option, problem in (
        ("nowhere.txt", "there is no file 'nowhere.txt'"),
        ("", "there is no file ''"),
        ("empty.txt", "the prompt in 'empty.txt' is empty"),
        ("folder", "'folder' is a folder"),
        ("unknown.txt", "does not know the character '§'"),
        ("python-docs", "'python-docs' is a folder"),  # never the corpus
    ):
        assert problem in refused("sample", book, "--prompt-file", option)
    line = refused("sample", book, "--prompt-file=p.txt", "--prompt=x")
    assert "--prompt and --prompt-file exclude each other" in line
    status, _, errors = run(
        *("sample", book, "--seed=1", "--length=5", "--prompt-file=unknown.txt", "--skip-unknown")
    )
    assert status == 0
    assert "1 unknown character of the prompt skipped" in errors


# --- Escapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["book", "bytes"])
def test_escapes_are_replaced_if_the_backslash_is_unknown(models: Path, model: str) -> None:
    plain, _ = sampled(models / model, "--prompt=woods\n", "--stop=e")
    found, errors = sampled(models / model, r"--prompt=woods\n", r"--stop=\x65", r"--stop=\u0065")
    assert found == plain
    assert errors == (
        "charloom: escapes in --prompt and --stop are replaced, because the model does not know "
        "the backslash\n"
    )
    assert sampled(models / model, "--escapes", r"--prompt=woods\n", "--stop=e") == (plain, "")
    for option in (r"--forbid=\n", r"--bias=\n=-inf"):
        found, errors = sampled(models / model, "--prompt=woods", option)
        assert "\n" not in found.removesuffix("\n")
        assert f"escapes in {option.partition('=')[0]} are replaced" in errors
    assert "\n" in sampled(models / model, "--length=5", r"--require=\n")[0]
    for prompt in ("woods\\", r"a\qn"):
        assert "REVERSE SOLIDUS" in refused("sample", str(models / model), f"--prompt={prompt}")
    line = refused("sample", str(models / model), "--escapes", r"--stop=\q")
    assert r"--stop is '\q', and '\q' is not a character" in line


def test_a_known_backslash_stays(models: Path) -> None:
    code = models / "code"
    literal, errors = sampled(code, "--prompt", r"woods\n", "--stop", r"\t dark")
    assert literal.startswith(r"woods\n")
    assert errors == ""
    plain, _ = sampled(code, "--prompt=woods\n")
    assert sampled(code, "--escapes", "--prompt", r"woods\n") == (plain, "")
    _, errors = sampled(code, "--stop", r"\n\n")
    assert r"--stop '\n\n' is not replaced, because the model knows the backslash" in errors
    assert "add --escapes" in errors


def test_impossible_stop_texts_are_refused(models: Path) -> None:
    for model in ("book", "lines", "bytes"):
        line = refused("sample", str(models / model), "--stop=e", "--stop=Qu§")
        assert "the stop text 'Qu§' cannot occur, because the model does not know" in line
    assert "a stop text is empty" in refused("sample", str(models / "book"), "--stop=")
    plain, _ = sampled(models / "lines", "--count=3")
    found, errors = sampled(models / "lines", "--count=3", "--stop=\n")
    assert found == plain
    assert (
        r"the stop text '\n' has no effect, because each document of the model is a line" in errors
    )


# --- Options without effect -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--no-prompt"], "--no-prompt requires --prompt"),
        (["--skip-unknown"], "--skip-unknown requires --prompt"),
        (["--escapes"], "--escapes requires --prompt, --stop, --forbid, --require or --bias"),
        (["--temperature=0", "--top-k=3"], "--top-k has no effect with --temperature 0"),
        (["--temperature=0", "--top-p=0.5"], "--top-p has no effect with --temperature 0"),
        (["--temperature=0", "--min-p=0.5"], "--min-p has no effect with --temperature 0"),
        (["--beam=2", "--stop=a"], "--stop has no effect with --beam"),
        (["--beam=2", "--seed=1"], "--seed has no effect with --beam"),
        (["--beam=2", "--temperature=0.5"], "--temperature has no effect with --beam"),
        (["--training-text=x"], "--training-text requires --report-overlap"),
        (["--min-length=0"], "min_length is 0: pass at least 1"),
        (["--min-length=9", "--length=8"], "min_length is 9: pass at least 1"),
    ],
)
def test_options_without_effect_are_refused(
    models: Path, arguments: list[str], problem: str
) -> None:
    assert problem in refused("sample", str(models / "book"), *arguments)


# --- Samples that are not empty -------------------------------------------------------------------


def test_short_samples_can_be_excluded(models: Path) -> None:
    command = ["sample", str(models / "book"), "--stop=e", "--seed=1", "--length=30", "--count=40"]
    everything = [json.loads(line)["text"] for line in run(*command, "--json")[1].splitlines()]
    kept = [
        json.loads(line)["text"]
        for line in run(*command, "--min-length=3", "--json")[1].splitlines()
    ]
    assert "" in everything
    assert len(kept) == 40
    assert min(map(len, kept)) >= 3
    long = [text for text in everything if len(text) >= 3]
    assert kept[: len(long)] == long
    model = charloom.load(models / "book")
    options = {"stop": "e", "seed": 1, "length": 30}
    documents = model.sample_documents(40, min_length=3, **options)
    assert [document.text for document in documents] == kept
    line = refused(*command, "--min-length=30", "--temperature=0", "--prompt=Th")
    assert "is a document of at least 30 characters" in line


def test_every_sample_is_a_line_for_a_reader_of_lines(models: Path) -> None:
    found = process(
        "sample", str(models / "book"), "--count=5", "--length=9", "--stop=\n", "--seed=1"
    )
    assert found.stdout.count(b"\n") == 5
    assert found.stdout.endswith(b"\n")
    alone = process("sample", str(models / "book"), "--length=9", "--seed=1")
    assert len(alone.stdout.decode()) == 9, "one sample of a book is exactly its characters"
    assert main(["sample", str(models / "book"), "--length=9", "--seed=1", "--json"]) == 0
