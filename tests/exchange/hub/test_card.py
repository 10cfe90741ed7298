"""The card says what was found, and nothing that is planted gets through it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import charloom
from charloom.evaluation.evaluation import Evaluation
from charloom.evaluation.records import read_evaluations
from charloom.evaluation.verdict import verdict
from charloom.exchange.hub import HubModel
from charloom.exchange.hub_folder import write_folder
from charloom.storage.checkpoint import load_checkpoint, save_checkpoint
from helpers.cli import run
from helpers.hub import FEW, saved, some_checkpoint
from helpers.texts import QUOTING_WOODS

# huggingface_hub's own, where it uploads without hf_xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_card_shows_the_evaluations(evaluated_run: Path) -> None:
    model = HubModel.from_pretrained(evaluated_run)
    model.save_pretrained("book", model_card_kwargs={"license": "cc0-1.0", "language": "en"})
    text = Path("book/README.md").read_text("utf-8")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["library_name"] == "charloom"
    assert metadata["pipeline_tag"] == "text-generation"
    assert {"character-level", model.config.cell} <= set(metadata["tags"])
    assert (metadata["license"], metadata["language"]) == ("cc0-1.0", "en")
    found = [entry["evaluation"] for entry in read_evaluations(evaluated_run)]
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
        sentence = verdict(Evaluation.from_dict(one))
        assert "beat" in sentence, "a network of eight units is worse than counting"
        assert sentence in text
    sha256 = hashlib.sha256(QUOTING_WOODS.encode()).hexdigest()
    assert f"`woods`, {len(QUOTING_WOODS):,} characters, SHA-256 `{sha256}`" in text
    assert str(evaluated_run.parent) not in text  # where it was is nobody's business
    assert "No license of the text is stated here" in text
    parameters = model.config.parameter_count
    assert f"(gru) with 8 hidden units in 1 layer, {parameters:,} parameters in float32" in text
    assert "mixed with those of an n-gram model of" in text
    # A table for a reader of Markdown too, and nothing else than what was meant.
    html = rendered(text)
    assert html.count("<table>") == 2
    assert html.count("<tr>") == 2 * 8


def test_leaked_text_is_not_published(evaluated_run: Path) -> None:
    HubModel.from_pretrained(evaluated_run).save_pretrained("book")
    entries = json.loads(Path("book/evaluations.json").read_text())
    for entry, there in zip(entries, read_evaluations(evaluated_run), strict=True):
        overlap = there["evaluation"]["longest_overlap"]
        assert overlap["text"]
        assert entry["evaluation"]["longest_overlap"] == overlap | {"text": ""}
    assert f"overlap with the training text: {overlap['characters']:,} characters" in (
        Path("book/README.md").read_text("utf-8")
    )


def test_code_on_the_card_runs(evaluated_run: Path) -> None:
    """As they stand, where the folder is."""
    HubModel.from_pretrained(evaluated_run).save_pretrained("it's a book")
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


def test_card_without_evaluations() -> None:
    Path("text.txt").write_text(QUOTING_WOODS, "utf-8")
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


def test_validation_split_is_named() -> None:
    Path("text.txt").write_text(QUOTING_WOODS, "utf-8")
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
def test_markup_is_escaped(name: str) -> None:
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
def test_damaged_evaluations_are_skipped(evaluations: bytes) -> None:
    save_checkpoint(Path("model.safetensors"), some_checkpoint())
    sha256 = load_checkpoint(Path("model.safetensors")).sha256 or ""
    Path("evaluations.json").write_bytes(evaluations.replace(b"SHA", sha256.encode()))
    HubModel.from_pretrained(".").save_pretrained("book")
    assert json.loads(Path("book/evaluations.json").read_text()) == []
    assert "have not been evaluated" in Path("book/README.md").read_text()


def test_non_numeric_metadata_is_skipped() -> None:
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
    assert f"from_pretrained({name!r})" in text
    html = rendered(text)
    assert html.count("<pre>") == 2
    assert html.startswith("<h1><code>")


def test_a_card_that_was_changed_is_kept(evaluated_run: Path) -> None:
    folder = saved()
    ours = (folder / "README.md").read_bytes()
    mine = ours.replace(b"## Limits", b"## My own words")
    assert mine != ours
    for changed in (mine, b"", b"# Mine\n", b"\xff\xfe", ours + b"\n", ours[:-30]):
        (folder / "README.md").write_bytes(changed)
        with pytest.warns(UserWarning, match=r"book.README\.md was edited by hand"):
            HubModel.from_pretrained(evaluated_run).save_pretrained("book")
        assert (folder / "README.md").read_bytes() == changed
    status, _, errors = run("export", str(evaluated_run), "--to=huggingface", "--out=book")
    assert status == 0
    assert "has not been overwritten" in errors.splitlines()[0]
    assert (folder / "README.md").read_bytes() == ours[:-30]
    assert HubModel.from_pretrained("book").config.hidden_size == 8  # the model is the new one
    # As git gives it back on Windows, it is still ours.
    (folder / "README.md").write_bytes(ours.replace(b"\n", b"\r\n"))
    HubModel.from_pretrained(evaluated_run).save_pretrained("book")
    assert "| ---" in (folder / "README.md").read_text("utf-8")
