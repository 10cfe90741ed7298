"""Typed text is the same characters of a model in Python, on the command line and over HTTP."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import charloom
from charloom.analysis.exploration import explore
from charloom.analysis.labels import label_text
from charloom.language_model import LanguageModel
from charloom.serving.tokens import Tokens
from charloom.text.format import open_texts
from charloom.text.typed import as_shown, compose
from charloom.text.vocabulary import END, UnknownCharacterError
from helpers.cli import run
from helpers.clients import Client, serving
from helpers.typed_models import FRENCH, MODELS, model_of

typed = st.text("le café à’été\r\n\ufeff\u0301,", max_size=12) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=6
)
every_model = pytest.mark.parametrize("name", list(MODELS))


def ids_of(model: LanguageModel, text: str) -> list[int]:
    return [int(id_) for id_ in model.encode(text, skip_unknown=True)]


@pytest.fixture(scope="module")
def french_bytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes as a file."""
    path = tmp_path_factory.mktemp("models") / "bytes.safetensors"
    MODELS["bytes"].save(path)
    return path


@every_model
@given(text=typed)
def test_python_and_http_read_the_same_characters(name: str, text: str) -> None:
    model = MODELS[name]
    tokens = Tokens(model.vocabulary, model.unseen, model.text_format)
    prompt = tokens.prompt(text, scored=False, skip_unknown=True)
    assert prompt.ids.tolist() == ids_of(model, text)
    stops = tokens.stop_forms(text)
    if all(stops) and stops:
        assert model.stream(stop=text).request.stop == stops
    elif not stops:
        with pytest.raises(charloom.CharloomError, match="cannot occur"):
            model.stream(stop=text)


@every_model
@given(text=typed.filter(bool))
def test_files_and_strings_are_the_same_characters(
    name: str, text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = MODELS[name]
    # A file of bytes is not changed, whatever they are.
    assume(not model.vocabulary.as_bytes or compose(text, model.vocabulary) == text)
    # A str that could be a name, too, is refused.
    assume("/" not in text and text not in (".", "..", "-"))
    assume("\0" not in text)  # a file with null characters is not text
    path = tmp_path_factory.getbasetemp() / "typed.txt"
    path.write_bytes(text.encode())
    expected = ids_of(model, text)
    for passed in (text, path, open_texts([path], model.text_format)):
        assert model.encode_to_score(passed, skip_unknown=True).ids.tolist() == expected


@every_model
@pytest.mark.parametrize(
    "text", ["cafe\u0301", "caf\u00e9", "le\r\nle\r", "\ufeffle", "l’e\u0301te\u0301 a\u0300"]
)
def test_the_command_line_reads_the_same_characters(name: str, text: str, tmp_path: Path) -> None:
    model = MODELS[name]
    model.save(tmp_path)
    path = str(tmp_path / "model.safetensors")
    arguments = ["--prompt", text, "--length=0", "--json", "--seed=1", "--skip-unknown"]
    status, output, notes = run("sample", path, *arguments)
    assert status == 0
    found = json.loads(output)
    assert found["text"] == as_shown(model.as_read(text), model.vocabulary)
    (document,) = model.sample_documents(1, prompt=text, length=0, skip_unknown=True)
    assert found["log_probability"] == pytest.approx(document.log_probability)
    composed = compose(text, model.vocabulary)
    assert ("the prompt is read in the Unicode form" in notes) == (composed != text)


@every_model
def test_stop_texts_are_read_like_prompts(name: str) -> None:
    model = MODELS[name]
    for stop in ("é", "e\u0301", "\r\n", "l’"):
        stream = model.stream("le", stop=["à", stop], length=30, seed=2)
        expected = model.as_read(stop)
        if "\r" not in model.vocabulary.characters:
            expected = expected.replace("\r", "")
        assert stream.request.stop == (model.as_read("à"), expected)
        text = "".join(stream)
        assert expected not in model.as_read(text)


def test_a_stop_text_has_the_line_breaks_of_the_model() -> None:
    forms = {
        "LF": ("\n",),
        "CRLF": ("\n", "\r\n"),
        "bytes": ("\n",),
        "all bytes": ("\n", "\r\n"),
    }
    for name, expected in forms.items():
        assert MODELS[name].stream(stop="\n").request.stop == expected
        assert MODELS[name].stream(stop=b"\n").request.stop == ("\n",)
    assert model_of("ab\r", keep_newlines=True).stream(stop="\n").request.stop == ("\r",)
    windows = model_of("a\r\n", keep_newlines=True)
    settings = {"stop": "\n", "length": 200, "seed": 1}
    samples = [windows.sample(index=index, **settings) for index in range(20)]
    everything = [windows.sample(index=index, length=200, seed=1) for index in range(20)]
    assert samples == [text.split("\n")[0].removesuffix("\r") for text in everything]
    assert any("\r\n" in text for text in everything)
    assert [found.text for found in windows.sample_documents(20, **settings)] == samples


def test_a_stop_text_that_cannot_occur_is_refused_in_python() -> None:
    model = MODELS["LF"]
    with pytest.raises(charloom.CharloomError, match="the stop text 'Q' cannot occur"):
        model.sample(stop=["é", "Q"])
    with pytest.warns(charloom.CharloomWarning, match="does not know the backslash"):
        assert model.stream(stop=r"\n").request.stop == ("\n",)
    with pytest.warns(charloom.CharloomWarning, match="each document of the model is a line"):
        assert model_of("ab" + END).stream(stop="\n").request.stop == ()


def test_lines_and_documents_are_read_like_prompts() -> None:
    model = MODELS["LF"]
    np.testing.assert_array_equal(
        model.score_lines(["cafe\u0301", "été\r"]), model.score_lines(["café", "été\n"])
    )
    np.testing.assert_array_equal(model.score("cafe\u0301\r\n").bits, model.score("café\n").bits)
    given = model.evaluate("le cafe\u0301\r\n" * 9, with_baselines=False)
    assert given == model.evaluate("le café\n" * 9, with_baselines=False)
    with pytest.raises(charloom.CharloomError, match=r"line 2: .*surrogate"):
        model.score_lines(["a", "a\ud800"])
    for pieces in ("ab", b"ab"):
        with pytest.raises(
            charloom.CharloomError, match=r"the lines are a single (string|bytes object)"
        ):
            model.score_lines(pieces)  # type: ignore[arg-type]


def test_a_file_in_another_encoding_is_passed_as_an_opened_text(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    for encoding, text in (("cp1252", "le café est à l’été\n"), ("koi8-r", "и это был вечер\n")):
        path.write_bytes((text * 20).encode(encoding))
        advice = rf"pass charloom\.open_text\(PATH, encoding='{encoding}'\)$"
        for function in (MODELS["LF"].evaluate, MODELS["LF"].score, MODELS["LF"].states):
            with pytest.raises(charloom.CharloomError, match=advice):
                function(path, skip_unknown=True)
        opened = charloom.open_text(path, encoding=encoding)
        assert len(MODELS["LF"].score(opened, skip_unknown=True).log_probabilities)
        with pytest.raises(charloom.CharloomError, match=f"pass --encoding {encoding}$"):
            open_texts([path], MODELS["LF"].text_format).read()


# --- A model of bytes ----------------------------------------------------------------------------


def test_a_model_of_bytes_takes_and_returns_text() -> None:
    model = MODELS["bytes"]
    text = model.sample("l’été", length=200, seed=1)
    assert text.startswith("l’été")
    pieces = list(model.stream("l’été", length=200, seed=1))
    assert "l’été" + "".join(pieces) == text
    drawn = "".join(model.stream("l’été", length=200, seed=1).characters)
    assert len(drawn) == 200
    # The largest length can cut a character, which is then left out.
    assert text == "l’été" + as_shown(drawn, model.vocabulary, ends=False)
    assert model.sample("l’été".encode(), length=200, seed=1) == text
    assert model.encode("été").tolist() == model.encode("été".encode()).tolist()
    assert len(model.encode("été")) == 5
    (document,) = model.sample_documents(1, prompt="l’été", length=200, seed=1)
    assert (document.text, document.characters) == (text, drawn)
    assert len(model.score("café").log_probabilities) == 5
    assert model.score_lines(["café"]) == model.score_lines(["café".encode()])
    with pytest.raises(UnknownCharacterError, match=r"byte 0x89 of 'É' .* at byte 1: write 'é'"):
        model.sample("É")


def test_a_prompt_of_bytes_can_end_inside_a_character() -> None:
    model = model_of("é", as_bytes=True)
    for index in range(20):
        stream = model.stream(b"\xc3", length=3, seed=1, index=index)
        drawn = "".join(model.stream(b"\xc3", length=3, seed=1, index=index).characters)
        assert "".join(stream) == as_shown("\xc3" + drawn, model.vocabulary, ends=False)
        assert model.sample(b"\xc3", length=3, seed=1, index=index) == "".join(
            model.stream(b"\xc3", length=3, seed=1, index=index)
        )


def test_scores_of_bytes_are_shown_as_text(french_bytes: Path, tmp_path: Path) -> None:
    lines = tmp_path / "q.txt"
    lines.write_text("le café\nl’été\n", encoding="utf-8")
    status, output, _ = run("score", str(french_bytes), str(lines), "--lines", "--csv")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["text"] for row in rows] == ["le café", "l’été"]
    assert [row["characters"] for row in rows] == ["8", "9"]
    _, table, _ = run("score", str(french_bytes), str(lines), "--lines")
    assert "bits/byte" in table
    assert "l’été" in table
    _, output, _ = run("score", str(french_bytes), str(lines), "--json")
    scores = json.loads(output)["scores"]
    assert [one["character"] for one in scores[6:9]] == [r"\xc3", r"\xa9", "\n"]
    guesses = {guess for one in scores for guess, _ in one["likeliest"]}
    assert all(guess.isascii() for guess in guesses)
    _, table, _ = run("score", str(french_bytes), str(lines), "--top", "3")
    assert "19 bytes" in table
    assert "Ã" not in table


def test_lines_of_another_unicode_form_are_shown_as_they_are(tmp_path: Path) -> None:
    MODELS["LF"].save(tmp_path)
    lines = tmp_path / "q.txt"
    lines.write_text("cafe\u0301\ncafé\n", encoding="utf-8")
    status, output, _ = run("score", str(tmp_path), str(lines), "--lines", "--csv")
    assert status == 0
    first, second = csv.DictReader(io.StringIO(output))
    assert (first.pop("text"), second.pop("text")) == ("cafe\u0301", "café")
    assert first.pop("line") != second.pop("line")
    assert first == second
    assert (first["characters"], first["unknown"]) == ("4", "0")


def test_bytes_have_the_labels_of_their_characters() -> None:
    model = MODELS["bytes"]
    text = FRENCH * 3
    found = {label.label: label.mean for label in explore(model, text).labels}
    sizes = [len(character.encode()) for character in text]
    labels = label_text(text)
    for name in ("after a vowel", "after a capital", "position in the word"):
        expected = float(np.repeat(labels[name], sizes).mean())
        assert found[name] == pytest.approx(expected)
    assert found["after a capital"] == 0
    # An invalid byte is a character without a label of letters.
    explore(MODELS["all bytes"], b"caf\xc3 caf\xc3\xa9\x81" * 9)


@pytest.fixture(scope="module")
def client() -> Any:
    with serving({"bytes": MODELS["bytes"], "LF": MODELS["LF"]}) as client:
        yield client


def test_a_model_of_bytes_is_served_as_text(client: Client) -> None:
    model = MODELS["bytes"]
    fields = {"prompt": "l’été", "max_tokens": 60, "n": 4, "seed": 5}
    reply = client.complete("bytes", **fields)
    for choice in reply["choices"]:
        stream = model.stream("l’été", length=60, seed=5, index=choice["index"])
        assert (choice["text"], choice["finish_reason"]) == ("".join(stream), "length")
    assert reply["usage"]["prompt_tokens"] == 9
    scored = client.complete("bytes", **fields, logprobs=2, echo=True)
    for choice, plain in zip(scored["choices"], reply["choices"], strict=True):
        assert choice["text"] == "l’été" + plain["text"]
        logprobs = choice["logprobs"]
        assert len(logprobs["tokens"]) == 69
        assert logprobs["tokens"][:5] == ["l", r"\xe2", r"\x80", r"\x99", r"\xc3"]
        assert logprobs["text_offset"][:8] == [0, 1, 1, 1, 2, 2, 3, 4]
        assert "Ã" not in json.dumps(choice, ensure_ascii=False)
    (choice,) = client.complete("bytes", prompt="l’été", max_tokens=0, echo=True)["choices"]
    assert choice["text"] == "l’été"
    body = {"model": "bytes", "prompt": "été", "add_special_tokens": False}
    _, _, content = client.ask("POST", "/tokenize", body)
    tokens = json.loads(content)["tokens"]
    assert tokens == [1 + id_ for id_ in ids_of(model, "été")]
    for end, text in ((5, "été"), (4, r"ét\xc3")):
        _, _, content = client.ask(
            "POST", "/detokenize", {"model": "bytes", "tokens": tokens[:end]}
        )
        assert json.loads(content) == {"prompt": text}


def test_unknown_characters_are_named_over_http(client: Client) -> None:
    error = client.refused(
        400, "POST", "/v1/completions", {"model": "LF", "prompt": ["le", "caf\u00c9"]}
    )
    assert error["message"].startswith("prompt 2 of 2: unknown character 'É' (U+00C9 LATIN ")
    assert "at position 3: write 'é' (U+00E9) instead" in error["message"]
    reply = client.complete("LF", prompt="cafe\u0301\r\n", max_tokens=0, echo=True)
    assert reply["choices"][0]["text"] == "café\n"
