"""Make the pictures of README.md and docs/ from real runs, in about four minutes: `make pictures`.

    python docs/tools/pictures.py [--folder DIR] [NAME ...]

A NAME is `demo`, `surprisal`, `playground`, `exported`, `report`, or that of a tutorial. Without
names, all of them are made. All pictures together have at most 600 KB.

Recordings are SVG files of what the commands printed. Pages are opened in Chromium and photographed
with twice as many pixels as they have on a screen. Requires the extra `browser` with Chromium, and
Pillow (it comes with the extra `notebook`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tutorials
from terminal_svg import Line, terminal_svg

DOCS = Path(__file__).parents[1]
IMAGES = DOCS / "images"
LARGEST_TOTAL = 600_000  # bytes of all pictures
# Bytes of a photograph, which is made smaller until it fits: in README.md, in a tutorial.
LARGEST_PICTURE, LARGEST_IN_TUTORIAL = 64_000, 60_000
COLORS = 128
SCORED = """\
The "for" statement is used to iterate over the elements of a sequence, such as a string, a tuple \
or a list, or over another iterable object.  An iterator is made for the result of the expression.

The "while" statement is used for repeated execution as long as an expression is true.  It tests \
the expression again and agian, and stops when it is a banana.

   while True:
       line = file.readline()
       if not line:
           break
       print(lime)

If a class defines the method "__len__()", an empty object is considered false.  Note that the cat \
sat on the keybaord, so sxqzw was written to the log.
"""


class Studio:
    """Commands in a folder, and photographs of the pages that they write."""

    def __init__(self, folder: Path, browser: Any) -> None:
        self.folder, self.browser = folder, browser
        self.lines: list[Line] = []  # what the last recorded command printed

    def charloom(self, *arguments: str) -> None:
        """Run a command.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        command = [sys.executable, "-m", "charloom", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def record(self, *arguments: str) -> list[Line]:
        """Run a command, and return its command line and its output with their times."""
        lines = [Line(0.0, " ".join(["$ charloom", *arguments]))]
        started = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "charloom", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(Line(time.monotonic() - started, line.rstrip("\n")))
        if process.returncode:
            raise RuntimeError("\n".join(line.text for line in lines))
        return lines

    @contextlib.contextmanager
    def page(self, address: str, width: int, height: int) -> Iterator[Any]:
        window = self.browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=2,
            color_scheme="light",
            reduced_motion="reduce",
        )
        window.set_default_timeout(15_000)
        page = window.new_page()
        page.goto(address)
        page.wait_for_load_state("load")
        yield page
        window.close()

    def photograph(
        self,
        address: str,
        name: str,
        width: int = 1000,
        height: int = 640,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        """Photograph a page, after `prepare` has used it as a reader would."""
        with self.page(address, width, height) as page:
            page.wait_for_timeout(400)
            if prepare is not None:
                try:
                    prepare(page)
                except Exception as error:  # a page without its example is still a picture
                    print(f"{name}: not prepared: {error}", file=sys.stderr)
                page.wait_for_timeout(400)
            largest = LARGEST_IN_TUTORIAL if "/" in name else LARGEST_PICTURE
            save_small(page.screenshot(), IMAGES / f"{name}.png", largest)


def save_small(screenshot: bytes, path: Path, largest: int) -> None:
    """Save a photograph with few colors, and with fewer pixels until it is small enough."""
    from PIL import Image

    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    scale = 1.0
    while True:
        size = (round(picture.width * scale), round(picture.height * scale))
        smaller = picture.resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture
        few = smaller.quantize(COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        data = io.BytesIO()
        few.save(data, "png", optimize=True)
        if len(data.getvalue()) <= largest or scale < 0.4:
            break
        scale -= 0.1
    write(path, data.getvalue())


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{path.relative_to(DOCS)}: {len(data):,} bytes", flush=True)


# --- Pictures of README.md ------------------------------------------------------------------------


def demo(studio: Studio) -> None:
    lines = studio.record("demo", "--out", "runs/demo")
    lines[0] = Line(0.0, "$ charloom demo")
    lines = [Line(line.seconds, line.text) for line in lines]
    svg = terminal_svg(lines, "charloom demo", rows=34, play_seconds=14)
    write(IMAGES / "demo.svg", svg.encode())


def demo_run(studio: Studio) -> str:
    """Return the demo's run, and make it where `demo` is not among the names."""
    if not (studio.folder / "runs" / "demo").exists():
        demo(studio)
    return "runs/demo"


def surprisal(studio: Studio) -> None:
    run = demo_run(studio)
    (studio.folder / "statements.txt").write_text(SCORED, encoding="utf-8")
    studio.charloom("score", run, "statements.txt", "--html", "statements.html")
    address = (studio.folder / "statements.html").as_uri()
    studio.photograph(address, "surprisal", prepare=point_at("agian"))


def point_at(text: str) -> Callable[[Any], None]:
    """Return a function that points at a text's second character on a page that colors a text."""

    def prepare(page: Any) -> None:
        page.locator(".text .row > span").first.wait_for()
        place = page.evaluate(
            """(text) => {
              const spans = [...document.querySelectorAll(".text .row > span")];
              const shown = spans.map((span) => span.textContent.slice(0, 1)).join("");
              return Math.max(0, shown.indexOf(text) + 1);
            }""",
            text,
        )
        page.locator(".text .row > span").nth(place).hover()

    return prepare


def report(studio: Studio) -> None:
    run = demo_run(studio)
    address = (studio.folder / run / "report.html").as_uri()
    studio.photograph(address, "report", height=760)


@contextlib.contextmanager
def served(studio: Studio, *runs: str) -> Iterator[str]:
    """Serve runs at a free port, and yield the address."""
    port = tutorials.free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "charloom", "serve", *runs, "--port", str(port)],
        cwd=studio.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def write_in_playground(prompt: str, length: int = 420) -> Callable[[Any], None]:
    """Return a function that samples in the playground, and points at a character."""

    def prepare(page: Any) -> None:
        page.locator("#model option").first.wait_for(state="attached")
        page.fill("#prompt", prompt)
        page.fill("#length", str(length))
        page.locator("input[name=temperature]").first.fill("0.7")
        if page.locator("#fresh").count():
            page.uncheck("#fresh")
            page.fill("#seed", "7")
        page.click("#go")
        page.locator("#status", has_text="characters in").wait_for()
        page.locator(".drawn").nth(30).hover(force=True)

    return prepare


def playground(studio: Studio) -> None:
    with served(studio, demo_run(studio)) as address:
        prepare = write_in_playground("The statement ")
        studio.photograph(address, "playground", 1100, 800, prepare)


def exported(studio: Studio) -> None:
    run = demo_run(studio)
    try:
        studio.charloom("export", run, "--to", "html", "--out", "demo.html")
    except subprocess.CalledProcessError:
        print("exported.png is skipped, because `charloom export --to html` failed", flush=True)
        return
    address = (studio.folder / "demo.html").as_uri()
    studio.photograph(address, "exported", 1100, 800, prepare=let_it_write)


def let_it_write(page: Any) -> None:
    """Let an exported page write, and point at a character."""
    page.locator("#status", has_text="computing").wait_for()
    page.evaluate("document.querySelector('.settings')?.setAttribute('open', '')")
    page.uncheck("#fresh")
    page.fill("#seed", "7")
    page.fill("#prompt", "The statement ")
    page.fill("#length", "420")
    page.fill("#temperature", "0.7")
    page.click("#go")
    page.locator("#text-write .row > span").nth(300).wait_for()
    page.wait_for_timeout(1000)
    page.locator("#text-write .row > span").nth(30).hover(force=True)


# --- Pictures of the tutorials --------------------------------------------------------------------


def run_tutorial(studio: Studio, name: str) -> tuple[Path, list[tutorials.Block]]:
    """Run a tutorial as its reader does; returns its folder and its blocks with their outputs."""
    folder = studio.folder / "tutorials" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder, tutorials.run_page(DOCS / "tutorials" / f"{name}.md", folder)


def as_lines(block: tutorials.Block) -> list[Line]:
    commands = [line for line in block.code.splitlines() if line.startswith("charloom ")]
    prompts = [Line(0.0, f"$ {command}") for command in commands]
    return [*prompts, *(Line(0.0, text) for text in block.output.splitlines())]


def still(blocks: Sequence[tutorials.Block], beginning: str) -> list[Line]:
    """Return the lines of the block whose code has a line with this beginning."""
    return next(
        as_lines(block)
        for block in blocks
        if re.search(rf"^{re.escape(beginning)}", block.code, re.M)
    )


def names(studio: Studio) -> None:
    _, blocks = run_tutorial(studio, "names")
    lines = still(blocks, "charloom sample runs/towns --count 10")
    lines += [Line(0.0, ""), *still(blocks, "charloom score")]
    write(IMAGES / "tutorials" / "names.svg", terminal_svg(lines, "new towns").encode())


def poet(studio: Studio) -> None:
    folder, _ = run_tutorial(studio, "poet")
    address = (folder / "marriage.html").as_uri()
    studio.photograph(address, "tutorials/poet", height=520, prepare=point_at("tempests"))


def log_watcher(studio: Studio) -> None:
    folder, _ = run_tutorial(studio, "log-watcher")
    address = (folder / "strange.html").as_uri()
    studio.photograph(address, "tutorials/log-watcher", height=560, prepare=point_at("30001ms"))


def classroom(studio: Studio) -> None:
    folder, _ = run_tutorial(studio, "classroom")
    address = (folder / "units.html").as_uri()
    studio.photograph(address, "tutorials/classroom", height=620, prepare=show_unit("h7"))


def show_unit(name: str) -> Callable[[Any], None]:
    """Return a function that colors the text of a page of units by one of them."""

    def prepare(page: Any) -> None:
        page.locator(".text .row > span").first.wait_for()
        page.locator("#unit").select_option(value=name)
        page.locator(".text .row > span").nth(60).hover()

    return prepare


def completion_service(studio: Studio) -> None:
    folder, _ = run_tutorial(studio, "completion-service")
    with served(studio, str(folder / "runs" / "code")) as address:
        prepare = write_in_playground("    def __init__(self, ", 320)
        studio.photograph(address, "tutorials/completion-service", 1100, 760, prepare)


PICTURES = {
    "demo": demo,
    "surprisal": surprisal,
    "playground": playground,
    "exported": exported,
    "report": report,
    "names": names,
    "poet": poet,
    "log-watcher": log_watcher,
    "classroom": classroom,
    "completion-service": completion_service,
}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the pictures of README.md and docs/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--folder", type=Path, help="folder of the runs (default: a temporary one)")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(PICTURES))
    if unknown:
        parser.error(f"unknown picture {unknown[0]}: choose from {', '.join(PICTURES)}")
    started = time.monotonic()
    failed = []
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        studio = Studio(folder, browser)
        for name in options.names or PICTURES:
            try:
                PICTURES[name](studio)
            except Exception as error:  # so that the other pictures are made
                failed.append(name)
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    total = sum(path.stat().st_size for path in IMAGES.rglob("*") if path.is_file())
    print(f"{total:,} bytes of {LARGEST_TOTAL:,}, in {time.monotonic() - started:.0f} seconds")
    if total > LARGEST_TOTAL:
        print("the pictures are too large: lower LARGEST_PICTURE", file=sys.stderr)
    return 1 if failed or total > LARGEST_TOTAL else 0


if __name__ == "__main__":
    sys.exit(main())
