"""A run's report in a browser: it opens from disk and asks for nothing; what it shows is what the
run's files hold; it can be read by mouse and by keys, in dark and in light."""

import json
import math
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import charloom
from charloom.cli.main import main
from charloom.evaluation.evaluation import Evaluation
from charloom.evaluation.verdict import verdict
from charloom.runs.report import RunStatus, refresh_report, write_report
from helpers.pages import CONTRAST, OpenPage, readout, wait_for_truth
from helpers.reports import lines_of
from helpers.texts import PLANTED

TEXT = f"The woods are lovely, {PLANTED}, dark and deep.\n" * 60


OPTIONS: dict[str, Any] = {"hidden_size": 8, "batch_size": 4, "window": 16, "seed": 1}


NATS = 1 / math.log(2)


LEFT, RIGHT = 58, 14  # of the charts, as in charts.js


# The smallest contrast of text (or of what is drawn) with what is behind it, and what it is of.
@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, evaluated, whose text holds HTML."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "woods.txt").write_text(TEXT, encoding="utf-8")
    charloom.train(folder / "woods.txt", out=folder / "run", steps=40, validate_every=8, **OPTIONS)
    assert main(["evaluate", str(folder / "run")]) == 0
    assert main(["report", str(folder / "run")]) == 0  # its samples are copied with it
    return folder


@pytest.fixture
def trained_run(base: Path, tmp_path: Path) -> Path:
    """A copy of it, in a folder whose name is HTML and whose last sample is too."""
    folder = tmp_path / PLANTED.partition("/")[0] / PLANTED.partition("/")[2]
    shutil.copytree(base / "run", folder)
    samples = (folder / "samples.txt").read_text(encoding="utf-8")
    head, heading, last = samples.rpartition("--- step 40")
    line = last.split("\n")[0]
    (folder / "samples.txt").write_text(f"{head}{heading}{line}\n{PLANTED}\n\n", encoding="utf-8")
    return folder


def point_at(page: Any, part: float, chart: int = 0) -> None:
    """Moves the mouse into a chart, to that part of its width."""
    plot = page.locator(".plot").nth(chart)
    plot.evaluate("plot => plot.scrollIntoView({ block: 'center' })")
    box = plot.bounding_box()
    x = box["x"] + LEFT + (box["width"] - LEFT - RIGHT) * part
    page.mouse.move(x, box["y"] + box["height"] / 2)


def test_html_in_a_run_is_not_executed(trained_run: Path, open_page: OpenPage) -> None:
    page = open_page(write_report([trained_run]))
    assert page.locator("h1").text_content() == trained_run.name
    assert page.locator(".earlier-samples pre.sample").first.text_content() == PLANTED
    page.locator("summary").first.click()
    assert page.locator(".samples pre").last.text_content() == PLANTED
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.planted") is None


def test_hovering_shows_the_metrics(trained_run: Path, open_page: OpenPage) -> None:
    page = open_page(write_report([trained_run]))
    reports = {line["step"]: line for line in lines_of(trained_run, "report")}
    validations = {line["step"]: line for line in lines_of(trained_run, "validation")}
    for step, chart in ((16, 0), (24, 1), (32, 2), (40, 3)):
        point_at(page, step / 40, chart)
        line, found = reports[step], readout(page)
        assert found["step"] == str(step)
        assert found["epoch"] == f"{line['epoch']:.2f}"
        assert found["training"] == f"{line['loss'] * NATS:.4f}"
        assert found["smoothed"] == f"{line['smoothed_loss'] * NATS:.4f}"
        nats = validations[step]["validation"]["nats_per_character"]
        assert found["validation"] == f"{nats * NATS:.4f}"
        assert float(found["learning rate"]) == pytest.approx(line["learning_rate"], rel=1e-3)
        assert float(found["gradient norm"]) == pytest.approx(line["gradient_norm"], rel=1e-3)
        speed = line["timing"]["characters_per_second"]
        assert found["characters/s"] == ("–" if speed is None else f"{speed:,}".removesuffix(".0"))
        xs = page.locator(".cross").evaluate_all("lines => lines.map(l => l.getAttribute('x1'))")
        assert len(set(xs)) == 1
        assert len(xs) == 4
    page.get_by_label("loss in").select_option("nats")
    assert readout(page)["training"] == f"{reports[40]['loss']:.4f}"
    point_at(page, 19 / 40)
    near = validations[16]["validation"]["nats_per_character"]
    assert readout(page)["validation"] == f"{near:.4f} (step 16)"


def test_keys_move_the_line(trained_run: Path, open_page: OpenPage) -> None:
    page = open_page(write_report([trained_run]))
    assert "arrow keys" in page.locator(".readout").text_content()
    page.locator(".plot").first.focus()
    places = []
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "PageUp", "Home"):
        page.keyboard.press(key)
        places.append(readout(page)["step"])
    assert places == ["0", "1", "40", "40", "39", "35", "0"]
    page.keyboard.press("Escape")
    assert page.locator(".readout dd").count() == 0
    page.keyboard.press("ArrowLeft")
    assert readout(page)["step"] == "40"
    # From chart to chart, and on to the samples.
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert readout(page)["step"] == "39"


@pytest.mark.parametrize("kind", ["epoch", "seconds"])
def test_axis_can_be_epochs_or_seconds(kind: str, trained_run: Path, open_page: OpenPage) -> None:
    lines = []
    for text in (trained_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        line["timing"]["elapsed_seconds"] = 7 + line["step"] ** 2  # as if it had become slower
        lines.append(json.dumps(line) + "\n")
    (trained_run / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    page = open_page(write_report([trained_run]))
    page.get_by_label("x-axis").select_option(kind)
    point_at(page, 30 / 40 if kind == "epoch" else (7 + 30**2) / (7 + 40**2))
    found = readout(page)
    assert found["step"] == "30"
    assert found["time"] == "15:07"
    assert found["epoch"] == f"{lines_of(trained_run, 'report')[29]['epoch']:.2f}"


def test_keys_step_through_samples(trained_run: Path, open_page: OpenPage) -> None:
    page = open_page(write_report([trained_run]))
    text = page.locator(".earlier-samples pre.sample").first
    page.locator("input[type=range]").focus()
    assert text.text_content() == PLANTED
    page.keyboard.press("ArrowLeft")
    line = lines_of(trained_run, "validation")[-2]
    heading = page.get_by_text("sample 5 of 6").text_content()
    nats = line["validation"]["nats_per_character"]
    assert heading == (
        f"sample 5 of 6: step 32, validation {nats * NATS:.4f} bits ({nats:.4f} nats)"
    )
    page.keyboard.press("Home")
    first = text.text_content()
    page.get_by_role("button", name="later").click()
    assert text.text_content() != first
    page.get_by_role("button", name="earlier").click()
    page.get_by_role("button", name="earlier").click()
    assert text.text_content() == first
    samples = (trained_run / "samples.txt").read_text(encoding="utf-8")
    assert samples.split("\n", 1)[1].startswith(first)


def test_report_shows_what_evaluate_prints(
    trained_run: Path, open_page: OpenPage, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(trained_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = open_page(trained_run / "report.html")
    told = page.locator("section").text_content()
    assert f"{found['nats_per_character']:.4f} nats = {found['bits_per_character']:.4f}" in told
    assert f"{found['bits_per_byte']:.4f} bits per byte" in told
    assert f"perplexity {found['perplexity']:.3f}, top-1 accuracy" in told
    assert f"training text: {found['longest_overlap']['characters']} characters" in told
    assert verdict(Evaluation.from_dict(found)) in told
    assert "false" not in told
    rows = page.locator("table.evaluation tbody tr").all()
    shown = {
        r.locator("td").nth(1).text_content(): r.locator("td").nth(0).text_content() for r in rows
    }
    expected = {n: f"{b['bits_per_character']:.4f}" for n, b in found["baselines"].items()}
    expected["this gru"] = expected.pop("network")
    assert shown == {**expected, "mixture": f"{found['bits_per_character']:.4f}"}
    assert list(shown.values()) == sorted(shown.values(), key=float)
    assert page.locator("tr.ours td").nth(1).text_content() == "mixture"


def test_baselines_are_labeled_lines(trained_run: Path, open_page: OpenPage) -> None:
    page = open_page(write_report([trained_run]))
    baselines = lines_of(trained_run, "start")[0]["baselines"]
    assert set(baselines) == {"uniform", "unigram", "ngram", "bzip2"}
    labels = set(page.locator(".plot text.label").all_text_contents())
    for name, baseline in baselines.items():
        assert f"{name} {baseline['bits_per_character']:.3f}" in labels
    dashes = page.locator(".level").evaluate_all(
        "lines => lines.map((line) => getComputedStyle(line).strokeDasharray)"
    )
    assert len(set(dashes)) == 4


def test_several_runs_beside_each_other(
    trained_run: Path, base: Path, tmp_path: Path, open_page: OpenPage
) -> None:
    charloom.train(base / "woods.txt", out=tmp_path / "second", steps=30, cell="rnn", **OPTIONS)
    shutil.copytree(tmp_path / "second", tmp_path / "x" / trained_run.name)
    runs = [trained_run, tmp_path / "second", tmp_path / "x" / trained_run.name]
    page = open_page(write_report(runs, tmp_path / "several.html"))
    page.locator(".plot").first.focus()
    page.keyboard.press("End")
    names = page.locator(".readout tbody td:first-child").all_text_contents()
    assert [name.strip() for name in names] == [
        f"{trained_run.parent.name}/{trained_run.name}",
        "second",
        f"x/{trained_run.name}",
    ]
    cells = page.locator(".readout tbody tr").nth(1).locator("td").all_text_contents()
    last = lines_of(tmp_path / "second", "validation")[-1]
    assert cells[1] == "30"
    assert cells[6] == f"{last['validation']['nats_per_character'] * NATS:.4f}"
    colors = page.locator(".curve.validation").evaluate_all(
        "curves => curves.map((curve) => getComputedStyle(curve).stroke)"
    )
    assert len(set(colors)) == 4  # three runs, and the legend's gray
    marked = page.locator("tr.differs td:first-child").all_text_contents()
    assert "≠ cell" in marked
    assert page.locator("input[type=range]").count() == 3
    assert page.evaluate("window.planted") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("several", [False, True])
def test_report_contrast_in_light_and_dark(
    scheme: str, several: bool, trained_run: Path, tmp_path: Path, open_page: OpenPage
) -> None:
    runs = [trained_run, trained_run] if several else [trained_run]
    page = open_page(write_report(runs, tmp_path / "page.html"), color_scheme=scheme)
    page.locator(".plot").first.focus()
    page.keyboard.press("End")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground[4:].split(",")[0]) > 128) == (scheme == "light")
    texts = (
        "h1, h2, h3, p, td, th, dt, dd, li, pre, code, label, button, select, summary, figcaption"
    )
    contrast, of = page.evaluate(CONTRAST, [texts, "color"])
    assert contrast >= 4.5, of
    contrast, of = page.evaluate(CONTRAST, [".plot text", "fill"])
    assert contrast >= 4.5, of
    contrast, of = page.evaluate(CONTRAST, [".curve, .level", "stroke"])
    assert contrast >= 4.5, of


def test_report_fits_a_phone(trained_run: Path, open_page: OpenPage) -> None:
    page = open_page(write_report([trained_run]), viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    point_at(page, 0.5)
    assert readout(page)["step"] == "20"
    assert page.locator(".plot svg").first.bounding_box()["width"] <= 400
    page.set_viewport_size({"width": 900, "height": 800})
    wait_for_truth(page, "document.querySelector('.plot svg').clientWidth > 700")
    assert readout(page)["step"] == "20"


def test_empty_run_has_a_report(tmp_path: Path, open_page: OpenPage) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    page = open_page(write_report([tmp_path / "run"]))
    assert page.locator("h1").text_content() == "run"
    page.locator(".plot").first.focus()
    for key in ("ArrowRight", "End", "Home", "Escape"):
        page.keyboard.press(key)
    point_at(page, 0.5)
    assert page.get_by_text("No samples yet.").is_visible()


def test_refit_has_a_curve_of_its_own(base: Path, tmp_path: Path, open_page: OpenPage) -> None:
    folder = tmp_path / "run"
    charloom.train(base / "woods.txt", out=folder, steps=20, refit=0.5, **OPTIONS)
    page = open_page(write_report([folder]))
    assert page.get_by_text("From step 10 on, most of the validation split").is_visible()
    whole, rest = page.locator(".plot .curve.validation").all()
    for curve in (whole, rest):  # two curves, and neither is interrupted
        assert curve.get_attribute("d").count("M") == 1
    ends = "curve => [curve.getBBox().x, curve.getBBox().x + curve.getBBox().width]"
    assert whole.evaluate(ends)[1] <= rest.evaluate(ends)[0] + 1
    labels = page.locator(".plot text.label").all_text_contents()
    names = ["validation, whole split", "validation, rest of the split"]
    assert [label for label in labels if label.startswith("validation")] == names
    for name in names:
        assert page.locator(".keys li", has_text=name).count() == 1
    colors = [curve.evaluate("curve => getComputedStyle(curve).stroke") for curve in (whole, rest)]
    assert colors[0] != colors[1]
    (end,) = set(
        page.locator(".level").evaluate_all(
            "lines => lines.map((line) => line.getAttribute('d').split('H')[1])"
        )
    )
    box = page.locator(".plot").first.bounding_box()
    assert float(end) == pytest.approx(LEFT + (box["width"] - LEFT - RIGHT) / 2, abs=1)


def test_headline_shows_the_model_beside_the_baselines(
    trained_run: Path, open_page: OpenPage, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(trained_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = open_page(write_report([trained_run]))
    part = page.locator("#headline")
    assert part.locator(".figure").text_content() == f"{found['bits_per_character']:.2f}"
    sentence = part.locator(".sentence").text_content()
    assert f"guesses {100 * found['accuracy']:.0f} of 100 characters" in sentence
    assert f"could store that text in {100 * found['bits_per_byte'] / 8:.0f}% of" in sentence
    bits = {"this model": found["bits_per_character"]}
    names = {"network": "network alone", "ngram": "n-gram model"}
    for name, baseline in found["baselines"].items():
        bits[names.get(name, name)] = baseline["bits_per_character"]
    # This text repeats itself, so that xz and bzip2 need nothing for more of it.
    assert sentence.endswith("% of its size.") == all(bits[n] <= 0 for n in ("xz", "bzip2"))
    widths = {}
    for row in part.locator("li").all():
        name = row.locator(".label").evaluate("label => label.firstChild.textContent")
        assert row.locator(".value").text_content() == f"{bits[name]:.2f}"
        widths[name] = row.locator(".amount").bounding_box()["width"]
    assert list(widths) == sorted(bits, key=lambda name: bits[name])
    most = max(bits.values())
    for name, width in widths.items():
        expected = bits[name] / most * widths[max(bits, key=lambda name: bits[name])]
        assert width == pytest.approx(max(expected, 0), abs=2.5), name
    assert part.locator("li.ours .label").text_content().startswith("this model")


def test_a_sample_can_be_drawn_anew(
    trained_run: Path,
    open_page: OpenPage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(trained_run.parent.parent)
    page = open_page(write_report([trained_run]))
    part = page.locator(".final-samples")
    texts = []
    for number in range(6):
        texts.append(part.locator("pre").text_content())
        assert f"seed {number + 1}, {number + 1} of 6" in part.text_content()
        command = part.locator("code").text_content()
        part.get_by_role("button", name="Another sample").focus()
        page.keyboard.press("Enter")
    assert len(set(texts)) == 6
    assert part.locator("pre").text_content() == texts[0]
    capsys.readouterr()
    assert main(shlex.split(command)[1:]) == 0  # the command that the page names
    assert capsys.readouterr().out.removesuffix("\n") == texts[-1]
    assert PLANTED[:7] in "".join(texts)


# --- While it trains ------------------------------------------------------------------------------


def live(trained_run: Path, open_page: OpenPage, state: str = "training") -> Any:
    """The page of a run that trains, under a clock that the test sets."""
    refresh_report(trained_run, RunStatus(state, 0.43))
    page = open_page(trained_run / "report.html")
    now = time.time()
    page.clock.install(time=now)
    page.clock.pause_at(now + 100)  # however slow the machine is
    page.reload()
    page.wait_for_selector("#standing")
    page.evaluate("window.before = true")
    return page


def assert_it_reloads(page: Any, seconds: int) -> None:
    page.clock.fast_forward(1000 * seconds)
    wait_for_truth(page, "!window.before && document.querySelector('#standing')")


def assert_it_stays(page: Any, seconds: int) -> None:
    page.clock.fast_forward(1000 * seconds)
    page.wait_for_timeout(300)
    page.wait_for_selector("#standing")
    assert page.evaluate("window.before")


def test_page_of_a_training_run_refreshes(trained_run: Path, open_page: OpenPage) -> None:
    page = live(trained_run, open_page)
    assert "training, 43% done, 40 steps" in page.locator("#standing").text_content()
    page.get_by_label("loss in").select_option("nats")
    page.evaluate("document.activeElement.blur(), scrollTo(0, 700)")
    assert_it_stays(page, 8)
    refresh_report(trained_run, RunStatus("training", 0.86))
    assert_it_reloads(page, 10)
    assert "86% done" in page.locator("#standing").text_content()
    assert page.get_by_label("loss in").input_value() == "nats"
    assert page.evaluate("scrollY") == 700


def test_refresh_pauses_while_reading(trained_run: Path, open_page: OpenPage) -> None:
    page = live(trained_run, open_page)
    point_at(page, 0.5)
    assert_it_stays(page, 60)
    page.mouse.move(1, 1)
    page.locator(".plot").first.focus()
    assert_it_stays(page, 60)
    page.evaluate("document.activeElement.blur()")
    assert_it_reloads(page, 20)


def test_refresh_can_be_turned_off(trained_run: Path, open_page: OpenPage) -> None:
    page = live(trained_run, open_page)
    page.get_by_label("auto-refresh").uncheck()
    page.mouse.move(1, 1)
    assert_it_stays(page, 60)
    page.reload()
    assert not page.get_by_label("auto-refresh").is_checked()


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_page_of_an_ended_run_does_not_refresh(
    state: str, trained_run: Path, open_page: OpenPage
) -> None:
    page = live(trained_run, open_page, state)
    assert_it_stays(page, 60)
    assert page.locator("#standing").text_content().startswith(state)
    assert page.locator("#standing input").count() == 0


def test_silent_run_is_reported_as_killed(trained_run: Path, open_page: OpenPage) -> None:
    page = live(trained_run, open_page)
    page.clock.install(time=time.time() + 3600)
    page.reload()
    assert "may have been killed" in page.locator("#standing").text_content()
    assert page.locator("#standing input").count() == 0
