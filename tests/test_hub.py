"""Models on Hugging Face's hub: a folder in its layout, the card, and a small hub on loopback."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from markdown_it import MarkdownIt
from safetensors.numpy import save_file

import charloom
from charloom.cli.main import main
from charloom.errors import CharloomError
from charloom.evaluation.records import read_evaluations
from charloom.network.initialization import initialize
from charloom.network.parameters import ModelConfig
from charloom.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from charloom.text.vocabulary import Vocabulary

pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
import yaml
from huggingface_hub import ModelCard, ModelHubMixin, constants

from charloom.exchange.hub import HubModel
from charloom.exchange.hub_folder import write_folder

pytestmark = [
    pytest.mark.hub,
    # huggingface_hub's own, where it uploads without hf_xet.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

TEXT = "The woods are lovely, dark and deep, 'und' schön → 字\n" * 60
FEW = {"steps": 6, "hidden_size": 8, "window": 16, "batch_size": 4, "seed": 1}
NOBODY = "http://127.0.0.1:9"  # where no hub is
FILES = ["README.md", "config.json", "evaluations.json", "model.safetensors"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and a hub that nobody runs: no test asks the real one."""
    monkeypatch.chdir(tmp_path)
    ask_at(NOBODY, tmp_path, monkeypatch)


def ask_at(endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN_PATH": str(folder / "no-token"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a mixture that was evaluated by two protocols."""
    folder = tmp_path_factory.mktemp("runs") / "woods"
    text = folder.parent / "woods.txt"
    text.write_text(TEXT, "utf-8")
    charloom.train(text, out=folder, **FEW)
    assert run("evaluate", str(folder))[0] == 0
    assert run("evaluate", str(folder), "--protocol=cold-16")[0] == 0
    return folder


def run(*arguments: str) -> tuple[int, str, str]:
    """A command's status, and what it wrote on standard output and standard error."""
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        status = main(list(arguments))
    output.seek(0)
    return status, output.read(), errors.getvalue()


def refused(*arguments: str) -> str:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    (line,) = errors.splitlines()
    return line


def some_checkpoint(cell: str = "gru", as_bytes: bool = False, **more: Any) -> Checkpoint:
    characters = tuple("\n ab\x00\xff" if as_bytes else "\n ab字'\"`|\u2028")
    config = ModelConfig(cell, 7, more.pop("layers", 1), len(characters), **more)
    return Checkpoint(initialize(config, seed=4), Vocabulary(characters, as_bytes))


def saved(folder: str = "book", **more: Any) -> Path:
    write_folder(some_checkpoint(), [], Path(folder), **more)
    return Path(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The folder.


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    "more", [{}, {"dtype": "float64", "layers": 2}, {"as_bytes": True}, {"dropout": 0.5}]
)
def test_what_is_saved_comes_back(cell: str, more: dict[str, Any]) -> None:
    before = HubModel(some_checkpoint(cell, **more), engine="reference")
    assert isinstance(before, ModelHubMixin)
    assert before.save_pretrained("book") is None
    after = HubModel.from_pretrained("book", engine="reference")
    assert after.config == before.config
    assert after.vocabulary == before.vocabulary
    assert after.checkpoint.parameters.flat.tobytes() == before.checkpoint.parameters.flat.tobytes()
    plain = charloom.load("book", engine="reference")
    text = before.sample(length=40, seed=3)
    assert [model.sample(length=40, seed=3) for model in (after, plain)] == [text, text]
    assert sorted(contents(Path("book"))) == FILES
    config = json.loads(Path("book/config.json").read_text())
    assert config["model_type"] == "charloom"
    assert config["cell"] == cell
    assert config["dtype"] == more.get("dtype", "float32")
    assert config["bytes"] is more.get("as_bytes", False)
    assert config["vocabulary"] == list(before.vocabulary.characters)
    assert run("info", "book", "--json")[0] == 0


def test_the_file_is_the_runs_own_to_the_byte(evaluated: Path) -> None:
    model = HubModel.from_pretrained(evaluated)
    assert model.mixture is not None
    model.save_pretrained(Path("copy-1"))
    HubModel.from_pretrained("copy-1").save_pretrained("copy-2")
    there = (evaluated / "model.safetensors").read_bytes()
    once, twice = contents(Path("copy-1")), contents(Path("copy-2"))
    assert once["model.safetensors"] == twice["model.safetensors"] == there
    assert once["evaluations.json"] == twice["evaluations.json"]
    assert (
        once["README.md"].replace(b"copy-1", b"copy-2").rpartition(b"SHA-256")[0]
        == (twice["README.md"].rpartition(b"SHA-256")[0])
    )
    status, printed, errors = run("export", str(evaluated), "--to=huggingface", "--out=thrice")
    assert (status, printed) == (0, "")
    assert "hf upload OWNER/thrice thrice" in errors
    assert contents(Path("thrice"))["model.safetensors"] == there
    scored = [charloom.load(folder).score("The dark").bits for folder in (evaluated, "thrice")]
    np.testing.assert_array_equal(*scored)
    assert HubModel.from_pretrained("copy-1", network_only=True).mixture is None


def test_a_model_in_memory_can_be_saved() -> None:
    trained = charloom.train(TEXT, **FEW)
    HubModel(trained.checkpoint).save_pretrained("book")
    assert charloom.load("book").sample(length=30) == trained.sample(length=30)


def test_what_a_run_needs_to_go_on_stays_at_home(evaluated: Path) -> None:
    resume = evaluated / "resume.safetensors"
    assert run("export", str(resume), "--to=huggingface", "--out=book")[0] == 0
    found = load_checkpoint(Path("book/model.safetensors"))
    assert found.position is None
    assert not found.optimizer
    assert found.parameters.flat.tobytes() == load_checkpoint(resume).parameters.flat.tobytes()
    assert json.loads(Path("book/evaluations.json").read_text()) == []  # of other weights


def test_a_folder_of_ours_is_written_again() -> None:
    saved(license="mit")
    Path("book/.gitattributes").write_text("*.safetensors filter=lfs\n")
    HubModel(some_checkpoint("lstm")).save_pretrained("book")
    assert HubModel.from_pretrained("book").config.cell == "lstm"
    assert ModelCard.load("book/README.md").data.license is None
    assert Path("book/.gitattributes").read_text() == "*.safetensors filter=lfs\n"


def test_a_folder_that_was_left_half_way_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("charloom.exchange.hub_folder.save_checkpoint", full)
        with pytest.raises(CharloomError, match=r"cannot write to 'book' \(No space left"):
            HubModel(some_checkpoint()).save_pretrained("book")
    assert sorted(contents(Path("book"))) == ["config.json"]
    saved()
    before = contents(Path("book"))
    with monkeypatch.context() as patched:
        patched.setattr("charloom.exchange.hub_folder.save_checkpoint", full)
        with pytest.raises(CharloomError, match="cannot write"):
            HubModel(some_checkpoint("lstm")).save_pretrained("book")
    after = contents(Path("book"))
    assert sorted(after) == FILES
    assert {k: v for k, v in after.items() if k != "config.json"} == {
        k: v for k, v in before.items() if k != "config.json"
    }
    saved()
    assert contents(Path("book")) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"theirs"),
        ("evaluations.json", b"[]"),
        ("config.json", b'{"model_type": "gpt2"}'),
        ("config.json", b"{"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'["model_type"]'),
    ],
)
def test_files_that_are_not_ours_are_not_overwritten(name: str, content: bytes) -> None:
    save_checkpoint(Path("model.safetensors"), some_checkpoint())
    Path("book").mkdir()
    Path("book", name).write_bytes(content)
    line = refused("export", "model.safetensors", "--to=huggingface", "--out=book")
    assert f"{Path('book', name)} exists" in line
    assert "pass a new folder" in line
    with pytest.raises(CharloomError, match="exists"):
        HubModel.from_pretrained("model.safetensors").save_pretrained("book")
    assert contents(Path("book")) == {name: content}


def test_a_run_is_not_overwritten(evaluated: Path) -> None:
    shutil.copytree(evaluated, "other")
    before = contents(Path("other"))
    for out in ("other", "other/."):
        line = refused("export", str(evaluated), "--to=huggingface", f"--out={out}")
        assert "model.safetensors exists and would be overwritten" in line
    assert contents(Path("other")) == before


@pytest.mark.parametrize("out", ["model.safetensors", "model.safetensors/book", "a" * 300, "a\0b"])
def test_a_folder_that_cannot_be_written(out: str) -> None:
    save_checkpoint(Path("model.safetensors"), some_checkpoint())
    line = refused("export", "model.safetensors", "--to=huggingface", f"--out={out}")
    assert "cannot write to" in line
    assert [path.name for path in Path.cwd().iterdir()] == ["model.safetensors"]


def test_a_configuration_cannot_be_given() -> None:
    with pytest.raises(CharloomError, match="omit config"):
        HubModel(some_checkpoint()).save_pretrained("book", config={"cell": "lstm"})  # type: ignore[arg-type]
    assert not Path("book").exists()


# What is no model.


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


def configured(**entries: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def with_pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def of_another_library(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"wte": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("victim",)


NO_MODEL = [
    (without("model.safetensors"), "contains no model.safetensors"),
    (with_pickle_only, "pickles can run code"),
    (of_another_library, "model_type in its config.json is 'gpt2', not 'charloom'"),
    (holding("config.json", b"{"), "model_type in its config.json is None, not 'charloom'"),
    (holding("config.json", b"\xff"), "model_type in its config.json is None, not 'charloom'"),
    (configured(hidden_size=12), "hidden_size is 12 in config.json and 7 in model.safetensors"),
    (configured(cell="lstm"), "cell is 'lstm' in config.json and 'gru' in model.safetensors"),
    (configured(vocabulary=["a"] * 1000), "because vocabulary is"),
    (configured(counts={"context": 3}), "counts is {'context': 3} in config.json"),
    (configured(format="charloom 2"), "format is 'charloom 2' in config.json"),
    (cut, "is damaged"),
    (flipped, "is damaged"),
    (holding("model.safetensors", pickle.dumps(Payload())), "is a pickle"),
]


@pytest.mark.parametrize(("change", "said"), NO_MODEL)
def test_a_folder_that_is_no_model(change: Any, said: str) -> None:
    change(saved())
    with pytest.raises(CharloomError, match=re.escape(said)) as caught:
        HubModel.from_pretrained("book")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    assert not Path("victim").exists()


def test_a_folder_needs_only_the_model() -> None:
    folder = saved()
    for name in FILES[:-1]:
        (folder / name).unlink()
    assert HubModel.from_pretrained(folder).config.hidden_size == 7
    configured_more = saved("other")
    configured(more_of_mine=1)(configured_more)
    HubModel.from_pretrained(configured_more)


# The card.


def card_of(folder: str | Path) -> ModelCard:
    return ModelCard.load(Path(folder) / "README.md")


def test_the_card_says_what_was_found(evaluated: Path) -> None:
    model = HubModel.from_pretrained(evaluated)
    model.save_pretrained("book", model_card_kwargs={"license": "cc0-1.0", "language": "en"})
    text = Path("book/README.md").read_text("utf-8")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["library_name"] == "charloom"
    assert metadata["pipeline_tag"] == "text-generation"
    assert {"character-level", model.config.cell} <= set(metadata["tags"])
    assert (metadata["license"], metadata["language"]) == ("cc0-1.0", "en")
    found = [entry["evaluation"] for entry in read_evaluations(evaluated)]
    assert [one["protocol"] for one in found] == ["carried", "cold-16"]
    (index,) = metadata["model-index"]
    assert index["name"] == "book"
    (result,) = index["results"]
    assert result["dataset"]["name"] == "woods, test split"
    figures = {(metric["name"], metric["value"]) for metric in result["metrics"]}
    assert len(figures) == 8
    lines = text.splitlines()
    for one in found:
        protocol = one["protocol"]
        bits = round(one["bits_per_character"], 4)
        assert (f"bits per character (mixture, {protocol})", bits) in figures
        assert f"{one['characters']:,} characters, protocol {protocol}:" in text
        baselines = one["baselines"]
        assert set(baselines) == {"network", "uniform", "unigram", "ngram", "xz", "bzip2"}
        rows = {"mixture": (bits, protocol)} | {
            f"this {model.config.cell}" if name == "network" else name: (
                baseline["bits_per_character"],
                baseline["protocol"],
            )
            for name, baseline in baselines.items()
        }
        for name, (value, kind) in rows.items():
            shown = f"**{value:.4f}**" if name == "mixture" else f"{value:.4f}"
            assert any(line.startswith(f"| {shown} | {name} | {kind} |") for line in lines)
        alone = round(baselines["network"]["bits_per_character"], 4)
        assert (f"bits per character (this gru alone, {protocol})", alone) in figures
        better = [
            name
            for name, (value, _) in rows.items()
            if value < one["bits_per_character"] and not name.startswith("this ")
        ]
        assert better, "a network of eight units is worse than counting"
        assert ("Baselines that beat this model here: " in text) is bool(better)
    sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
    assert f"`woods`, {len(TEXT):,} characters, SHA-256 `{sha256}`" in text
    assert str(evaluated.parent) not in text  # where it was is nobody's business
    assert "No license of the text is stated here" in text
    parameters = model.config.parameter_count
    assert f"(gru) with 8 hidden units in one layer, {parameters:,} parameters in float32" in text
    assert "mixed with those of an n-gram model of" in text
    # A table for a reader of Markdown too, and nothing else than what was meant.
    html = rendered(text)
    assert html.count("<table>") == 2
    assert html.count("<tr>") == 2 * 8


def test_a_stretch_that_leaked_is_not_published(evaluated: Path) -> None:
    HubModel.from_pretrained(evaluated).save_pretrained("book")
    entries = json.loads(Path("book/evaluations.json").read_text())
    for entry, there in zip(entries, read_evaluations(evaluated), strict=True):
        overlap = there["evaluation"]["longest_overlap"]
        assert overlap["text"]
        assert entry["evaluation"]["longest_overlap"] == overlap | {"text": ""}
    assert f"overlap with the training text: {overlap['characters']:,} characters" in (
        Path("book/README.md").read_text("utf-8")
    )


def test_the_cards_lines_run(evaluated: Path) -> None:
    """As they stand, where the folder is."""
    HubModel.from_pretrained(evaluated).save_pretrained("it's a book")
    text = Path("it's a book/README.md").read_text("utf-8")
    (python,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", python], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.decode()) >= 200
    (shell,) = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    # `charloom` may not be on the path.
    command = f'charloom() {{ "{sys.executable}" -m charloom "$@"; }}\n{shell}'
    done = subprocess.run(["sh", "-ec", command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"8 hidden units" in done.stdout


def test_the_card_of_what_was_never_evaluated() -> None:
    Path("text.txt").write_text(TEXT, "utf-8")
    model = charloom.train("text.txt", out="run", **FEW)
    HubModel.from_pretrained("run").save_pretrained("book")
    text = Path("book/README.md").read_text("utf-8")
    validation = model.checkpoint.metrics["validation"]
    bits = validation["nats_per_character"] / np.log(2)
    assert "`charloom evaluate` on their run" in text
    assert f"the network alone had {bits:.4f} bits per character" in text
    assert "| ---" not in text
    assert "model-index" not in text
    # Weights that came later do not get the figures of earlier ones.
    assert run("evaluate", "run")[0] == 0
    older = read_evaluations(Path("run"))
    newer = HubModel(some_checkpoint(), evaluations=older)
    assert "| ---" not in newer.generate_model_card().text
    assert "has no record of its training text" in newer.generate_model_card().text
    assert "| ---" in HubModel.from_pretrained("run").generate_model_card("book").text


def test_a_validation_part_is_told_as_one() -> None:
    Path("text.txt").write_text(TEXT, "utf-8")
    charloom.train("text.txt", out="run", split="80/20/0", no_mix=True, **FEW)
    assert run("evaluate", "run")[0] == 0
    HubModel.from_pretrained("run").save_pretrained("book")
    text = Path("book/README.md").read_text("utf-8")
    assert "on the validation split of" in text
    assert "chosen on this split" in text
    assert "It has no n-gram model" in text
    assert "** | this gru | carried |" in text


PLANTED = [
    "| x",
    "a\nb",
    "a\n---\nlicense: mit\n---\n",
    "---",
    "'\"",
    "`",
    "``` \n# title",
    " `` ",
    "<script>alert(1)</script>",
    "<!-- ",
    "--> <img src=x onerror=alert(1)>",
    "[click](http://evil.example)",
    "![](http://evil.example/a.png)",
    "http://evil.example",
    "**bold** _em_ ~~no~~ &amp; $x$",
    "a\\",
    "{{ card_data }}",
    "\u2028\u202e\x00\x7f\ud800",
    "!!python/object:os.system",
    "",
    " ",
    "x" * 10_000,
]


@pytest.mark.parametrize("name", PLANTED, ids=range(len(PLANTED)))
def test_what_is_planted_does_not_get_through(name: str) -> None:
    """In the text's name and in every word of an evaluation: the card is the same but for them."""
    plain, planted = (card_with(word) for word in ("harmless", name))
    assert set(planted.data.to_dict()) == set(plain.data.to_dict())
    assert planted.data.license is None
    assert len(planted.data.eval_results) == len(plain.data.eval_results) == 4
    one, other = (re.findall(r"<[^>]*>", rendered(str(card))) for card in (plain, planted))
    if name.strip():
        assert one == other
    else:
        assert set(other) <= set(one)
    # It is read back as it was written, also by the library's own reader.
    Path("README.md").write_text(str(planted), "utf-8")
    assert ModelCard.load("README.md").data.to_dict() == planted.data.to_dict()


def card_with(word: str) -> ModelCard:
    checkpoint = some_checkpoint()
    checkpoint.sha256 = "0" * 64
    checkpoint.text = {"name": word, "origin": word, "sha256": word, "characters": 12}
    baseline = {"bits_per_character": 2.5, "protocol": word, "note": word, "reason": None}
    missing = {"bits_per_character": None, "protocol": word, "note": word, "reason": word}
    evaluation = {
        "text": word,
        "model": "mixture",
        "protocol": word,
        "characters": 100,
        "utf8_bytes": 104,
        "skipped_characters": 0,
        "nats_per_character": 1.5,
        "nats_per_character_95_percent": [1.4, 1.6],
        "bits_per_character": 2.2,
        "bits_per_byte": 2.1,
        "perplexity": 4.5,
        "accuracy": 0.5,
        "longest_overlap": {"characters": 3, "place": 0, "training_place": 0, "text": word},
        "baselines": {"network": baseline, "xz" + word: baseline, word: missing},
    }
    entry = {"sha256": "0" * 64, "evaluation": evaluation}
    return HubModel(checkpoint, evaluations=[entry]).generate_model_card("book")


def rendered(card: str) -> str:
    """A card's text as HTML, the metadata cut off and its own mark too."""
    body = card.split("\n---\n", 1)[1].rpartition("<!-- Written by charloom")[0]
    return str(MarkdownIt("commonmark", {"html": True}).enable(["table"]).render(body))


@pytest.mark.parametrize(
    "evaluations",
    [
        b"",
        b"[",
        b"{}",
        b'[1, {"sha256": 1}, {"sha256": "", "evaluation": []}]',
        b'[{"sha256": "SHA", "evaluation": {}}]',
        b'[{"sha256": "SHA", "evaluation": {"model": NaN, "baselines": {"network": 3}}}]',
    ],
)
def test_damaged_evaluations_are_passed_over(evaluations: bytes) -> None:
    save_checkpoint(Path("model.safetensors"), some_checkpoint())
    sha256 = load_checkpoint(Path("model.safetensors")).sha256 or ""
    Path("evaluations.json").write_bytes(evaluations.replace(b"SHA", sha256.encode()))
    HubModel.from_pretrained(".").save_pretrained("book")
    assert json.loads(Path("book/evaluations.json").read_text()) == []
    assert "have not been evaluated" in Path("book/README.md").read_text()


def test_metadata_that_is_no_number_is_passed_over() -> None:
    for metrics in ({"validation": 3}, {"validation": {"nats_per_character": "x"}}, {}):
        checkpoint = some_checkpoint()
        checkpoint.metrics = metrics
        assert "have not been evaluated" in HubModel(checkpoint).generate_model_card().text


@pytest.mark.parametrize("folder", ["..", ".", "a b", "```", "<b>", "-- x", "字"])
def test_the_folders_name_is_the_models(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in/side").mkdir(parents=True)
    monkeypatch.chdir("in/side")
    write_folder(some_checkpoint(), [], Path(folder))
    name = Path(folder).resolve().name
    text = (Path(folder) / "README.md").read_text("utf-8")
    assert f"from_pretrained({name!a})" in text
    html = rendered(text)
    assert html.count("<pre>") == 2
    assert html.startswith("<h1><code>")


def test_a_card_that_was_changed_is_kept(evaluated: Path) -> None:
    folder = saved()
    ours = (folder / "README.md").read_bytes()
    mine = ours.replace(b"## Limits", b"## My own words")
    assert mine != ours
    for changed in (mine, b"", b"# Mine\n", b"\xff\xfe", ours + b"\n", ours[:-30]):
        (folder / "README.md").write_bytes(changed)
        with pytest.warns(UserWarning, match=r"book.README\.md was edited by hand"):
            HubModel.from_pretrained(evaluated).save_pretrained("book")
        assert (folder / "README.md").read_bytes() == changed
    status, _, errors = run("export", str(evaluated), "--to=huggingface", "--out=book")
    assert status == 0
    assert "has not been overwritten" in errors.splitlines()[0]
    assert (folder / "README.md").read_bytes() == ours[:-30]
    assert HubModel.from_pretrained("book").config.hidden_size == 8  # the model is the new one
    # As git gives it back on Windows, it is still ours.
    (folder / "README.md").write_bytes(ours.replace(b"\n", b"\r\n"))
    HubModel.from_pretrained(evaluated).save_pretrained("book")
    assert "| ---" in (folder / "README.md").read_text("utf-8")


# A hub. What it answers is what huggingface_hub's client asks for, no more.

TOKEN = "hf_of_me"


class Repository:
    def __init__(self, private: bool = False) -> None:
        self.private = private
        self.gated = False
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.messages: list[str] = []

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        number = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[number] = files
        self.branches[branch] = number
        self.messages.append(message)
        return number

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.asked: list[str] = []
        self.status = 0  # that it answers everything with
        self.meanwhile: Callable[[], Any] | None = None  # what happens while a file is given

    def repository(self, name: str, folder: Path | None = None, **more: Any) -> Repository:
        made = self.repositories[name] = Repository(**more)
        made.commit("main", {".gitattributes": b""} | (contents(folder) if folder else {}))
        return made


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if self.server.status:
            return self.give({"error": "out of order"}, self.server.status)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self.give({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/large/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.server.large[found[1]] = body
            return self.give({})
        for pattern, method in (
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.info),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self.preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self.commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch()", self.batch),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        ):
            if found := re.fullmatch(pattern, path):
                name, revision, *file = found.groups()
                repository = self.server.repositories.get(name)
                if repository is None or (repository.private and not self.is_known()):
                    return self.fail(404, "RepoNotFound")
                revision = revision or "main"
                commit = repository.branches.get(revision, revision)
                if commit not in repository.commits:
                    return self.fail(404, "RevisionNotFound")
                if method in (self.preupload, self.commit, self.batch) and not self.is_known():
                    return self.fail(403, "")
                return method(name, repository, revision, commit, *file, body=body)
        return self.fail(404, "")

    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def create(self, asked: dict[str, Any]) -> None:
        if not self.is_known():
            return self.fail(401, "")
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name.split("/")[0] != "me":
            return self.fail(403, "")
        there = name in self.server.repositories
        if not there:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server.repository(name, private=bool(private))
        return self.give({"url": f"{self.server.url}/{name}"}, 409 if there else 200)

    def info(self, name: str, repository: Repository, _: str, commit: str, body: bytes) -> None:
        siblings = [{"rfilename": file} for file in repository.commits[commit]]
        self.give({"id": name, "sha": commit, "siblings": siblings, "tags": []})

    def preupload(self, name: str, repository: Repository, *_: str, body: bytes) -> None:
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        self.give({"files": files})

    def batch(self, name: str, repository: Repository, *_: str, body: bytes) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.server.url}/large/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.give({"transfer": "basic", "objects": objects})

    def commit(
        self, name: str, repository: Repository, revision: str, commit: str, body: bytes
    ) -> None:
        files, message = dict(repository.commits[commit]), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.server.large[value["oid"]]
        pull = "create_pr=1" in self.path
        made = repository.commit("refs/pr/1" if pull else revision, files, message)
        address = f"{self.server.url}/{name}/commit/{made}"
        request = f"{self.server.url}/{name}/discussions/1"
        self.give({"commitUrl": address, "commitOid": made, "pullRequestUrl": request})

    def resolve(
        self, name: str, repository: Repository, _: str, commit: str, file: str, body: bytes
    ) -> None:
        if repository.gated:
            return self.fail(403, "GatedRepo")
        content = repository.commits[commit].get(file)
        if content is None:
            return self.fail(404, "EntryNotFound", {"X-Repo-Commit": commit})
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        if self.command == "GET" and self.server.meanwhile is not None:
            self.server.meanwhile()
        return self.send(200, content, {"X-Repo-Commit": commit, "ETag": etag})

    def give(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str, more: dict[str, str] | None = None) -> None:
        self.send(status, b'{"error": "no"}', {"X-Error-Code": code} | (more or {}))

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    ask_at(server.url, tmp_path, monkeypatch)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_goes_to_the_hub_and_comes_back(hub: Hub, evaluated: Path) -> None:
    model = HubModel.from_pretrained(evaluated)
    address = model.push_to_hub("me/book", private=True, token=TOKEN, commit_message="The woods")
    repository = hub.repositories["me/book"]
    assert address == f"{hub.url}/me/book/commit/{repository.branches['main']}"
    assert repository.private
    assert repository.messages[-1] == "The woods"
    files = repository.files()
    assert sorted(files) == sorted([*FILES, ".gitattributes"])
    assert files["model.safetensors"] == (evaluated / "model.safetensors").read_bytes()
    text = files["README.md"].decode()
    assert "# `me/book`" in text
    assert "from_pretrained('me/book')\n" in text
    assert "hf download me/book --local-dir book" in text
    assert f"{model.config.hidden_size} hidden units" in text
    back = HubModel.from_pretrained("me/book", token=TOKEN)
    assert back.sample(length=50) == model.sample(length=50)
    assert back.generate_model_card("me/book").content == text
    with pytest.raises(CharloomError, match="nor an accessible model on Hugging Face Hub"):
        HubModel.from_pretrained("me/book", cache_dir="elsewhere")  # without the token


def test_saving_can_push(hub: Hub) -> None:
    model = HubModel(some_checkpoint())
    more = {"license": "mit"}
    model.save_pretrained("book", push_to_hub=True, token=TOKEN, model_card_kwargs=more)
    files = hub.repositories["me/book"].files()
    assert files["model.safetensors"] == Path("book/model.safetensors").read_bytes()
    assert b"license: mit" in files["README.md"]
    assert b"# `me/book`" in files["README.md"]  # whose it is was told by the hub
    model.save_pretrained("book", push_to_hub=True, repo_id="me/other", token=TOKEN)
    assert set(FILES) <= set(hub.repositories["me/other"].files())


def test_branches_requests_and_revisions(hub: Hub) -> None:
    repository = hub.repository("me/book")
    repository.branches["draft"] = repository.branches["main"]
    HubModel(some_checkpoint("rnn")).push_to_hub("me/book", token=TOKEN, branch="draft")
    assert sorted(repository.files()) == [".gitattributes"]
    HubModel(some_checkpoint("lstm")).push_to_hub("me/book", token=TOKEN, create_pr=True)
    assert sorted(repository.files()) == [".gitattributes"]
    HubModel(some_checkpoint("gru")).push_to_hub("me/book", token=TOKEN, allow_patterns="*.json")
    assert sorted(repository.files()) == [".gitattributes", "config.json", "evaluations.json"]
    for revision, cell in (("draft", "rnn"), ("refs/pr/1", "lstm")):
        if "/" in revision:
            revision = repository.branches[revision]
        assert HubModel.from_pretrained("me/book", revision=revision).config.cell == cell
    with pytest.raises(CharloomError, match="me/book has no revision 'v2'"):
        HubModel.from_pretrained("me/book", revision="v2")


def test_what_was_downloaded_is_there_without_a_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved()
    hub.repository("you/book", Path("book"))
    for cache in ("one", "two"):
        HubModel.from_pretrained("you/book", cache_dir=cache)
    asked = len(hub.asked)
    HubModel.from_pretrained("you/book", cache_dir="one", local_files_only=True)
    assert len(hub.asked) == asked
    # The files themselves are not asked for twice, unless it is wished.
    HubModel.from_pretrained("you/book", cache_dir="one")
    assert not any(line.startswith("GET /you") for line in hub.asked[asked:])
    HubModel.from_pretrained("you/book", cache_dir="one", force_download=True)
    assert "GET /you/book/resolve" in "".join(hub.asked[asked:])
    ask_at(NOBODY, tmp_path, monkeypatch)
    assert HubModel.from_pretrained("you/book", cache_dir="two").config.hidden_size == 7
    for more, said in (
        ({}, r"Hugging Face Hub cannot be reached \(.*refused"),
        ({"local_files_only": True}, "Hugging Face Hub is not used"),
    ):
        with pytest.raises(
            CharloomError, match=f"neither a folder nor in the cache.*{said}"
        ) as caught:
            HubModel.from_pretrained("you/other", cache_dir="two", **more)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(
        CharloomError, match=r"Hugging Face Hub request for me/book failed: "
    ) as caught:
        HubModel(some_checkpoint()).push_to_hub("me/book", token=TOKEN)
    assert len(str(caught.value).splitlines()) == 1


def test_all_files_are_of_one_commit(hub: Hub) -> None:
    write_folder(some_checkpoint("lstm"), [], Path("newer"))
    repository = hub.repository("you/book", saved())
    hub.meanwhile = lambda: repository.commit("main", contents(Path("newer")))
    assert HubModel.from_pretrained("you/book").config.cell == "gru"
    hub.meanwhile = None
    assert HubModel.from_pretrained("you/book").config.cell == "lstm"


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("charloom.exchange.hub_client.LONGEST_WAIT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ask_at(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, monkeypatch)
        with pytest.raises(CharloomError, match="Hugging Face Hub cannot be reached"):
            HubModel.from_pretrained("you/book")
        with pytest.raises(CharloomError, match="request for me/book failed"):
            HubModel(some_checkpoint()).push_to_hub("me/book", token=TOKEN)


def test_a_card_that_was_changed_on_the_hub_is_kept(hub: Hub) -> None:
    HubModel(some_checkpoint("rnn")).push_to_hub("me/book", token=TOKEN)
    repository = hub.repositories["me/book"]
    ours = repository.files()["README.md"]
    HubModel(some_checkpoint("lstm")).push_to_hub("book", token=TOKEN)
    theirs = repository.files()["README.md"]
    assert theirs != ours
    assert b"(lstm)" in theirs
    mine = theirs.replace(b"## Limits", b"## Mine")
    repository.commit("main", repository.files() | {"README.md": mine})
    with pytest.warns(UserWarning, match=r"me/book/README\.md was edited by hand"):
        HubModel(some_checkpoint("gru")).push_to_hub(
            "me/book", token=TOKEN, ignore_patterns="*.txt"
        )
    assert repository.files()["README.md"] == mine
    assert b'"cell": "gru"' in repository.files()["config.json"]


@pytest.mark.parametrize(("change", "said"), NO_MODEL)
def test_what_is_no_model_on_the_hub(hub: Hub, change: Any, said: str) -> None:
    change(saved())
    hub.repository("you/book", Path("book"))
    shutil.rmtree("book")
    with pytest.raises(CharloomError, match=re.escape(said)) as caught:
        HubModel.from_pretrained("you/book")
    assert len(str(caught.value).splitlines()) == 1
    assert not Path("victim").exists()
    if change is of_another_library:
        assert not any("model.safetensors" in line for line in hub.asked)


def test_what_the_hub_refuses(hub: Hub) -> None:
    def told(name: str, **more: Any) -> str:
        with pytest.raises(CharloomError) as caught:
            HubModel.from_pretrained(name, **more)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "nor an accessible model on Hugging Face Hub" in told("you/nothing")
    for name in ("a/b/c", "a b", "../a", "a\0b", "x" * 5000, "you/--", "runs/book.txt/"):
        assert "is neither a folder nor a model's name on Hugging Face Hub" in told(name)
    hub.repository("you/book", saved())
    hub.repository("you/empty")
    assert "you/empty contains no model.safetensors" in told("you/empty")
    (Path("book") / "config.json").unlink()
    hub.repository("you/bare", Path("book"))
    assert "you/bare contains no config.json" in told("you/bare")
    hub.repositories["you/book"].gated = True
    assert "is restricted by its owner" in told("you/book")
    hub.status = 500
    assert "request for you/book failed: " in told("you/book")
    hub.status = 0

    def told_when_pushing(name: str, token: str | None) -> str:
        with pytest.raises(CharloomError) as caught:
            HubModel(some_checkpoint()).push_to_hub(name, token=token)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "hf auth login" in told_when_pushing("you/book", TOKEN)
    assert "hf auth login" in told_when_pushing("me/book", "hf_wrong")
    assert "hf auth login" in told_when_pushing("me/book", None)
    assert "is neither a folder nor a model's name on Hugging Face Hub" in told_when_pushing(
        "a/b/c", TOKEN
    )
    assert not [name for name in hub.repositories if name.startswith("me/")]
