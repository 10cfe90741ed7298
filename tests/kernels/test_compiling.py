"""Kernels are compiled once, kept safely, and compiled again when a source changes."""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

import charloom
from charloom.errors import CharloomError
from charloom.kernels import cache, helper
from charloom.kernels.cache import cache_folder
from charloom.kernels.kernel import Kernel, finish_compiling, seconds_compiling
from helpers.processes import in_a_new_process

STEP = """
    import numpy as np
    from charloom.engines.backend import Backend
    from charloom.network.parameters import ModelConfig
    from charloom.network.initialization import initialize
    engine = Backend("compiled").open(initialize(ModelConfig("rnn", 8, 1, 5), 0))
    engine.step(np.array([1]), engine.config.zero_state(1))
"""

# A kernel that is compiled in a second. A training kernel takes 15 times as long.
COUNT = """
    import numpy as np
    from charloom.prediction.mixture import fit_ngram_table
    table = fit_ngram_table(np.arange(40) % 5, 5, 2, 1e6)
    assert table.look_up(np.array([[1, 2]], np.int32)).probabilities.shape == (1, 5)
"""
NUMBA_OF_PROCESS = "    import sys; print({'numba', 'llvmlite'} & set(sys.modules))"


def kernels(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.kernel"))


@pytest.mark.slow
def test_kernel_is_compiled_once_with_a_notice_and_then_needs_no_compiler(tmp_path: Path) -> None:
    first = in_a_new_process(COUNT, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("\n") == 1
    assert "compiling the kernel for counting" in first.stderr
    (kernel,) = kernels(tmp_path)
    again = in_a_new_process(COUNT + NUMBA_OF_PROCESS, NUMBA_CACHE_DIR=str(tmp_path))
    assert (again.returncode, again.stdout, again.stderr) == (0, "set()\n", "")
    assert kernels(tmp_path) == [kernel]


@pytest.mark.slow
def test_an_engine_with_kept_kernels_needs_no_compiler() -> None:
    assert in_a_new_process(STEP).returncode == 0  # compiles, where no test did so before
    again = in_a_new_process(STEP + NUMBA_OF_PROCESS)
    assert (again.returncode, again.stdout, again.stderr) == (0, "set()\n", "")


def test_a_folder_that_can_only_be_read_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert run_kernel(tiny_kernel()) == 2
    assert len(caplog.records) == 1
    monkeypatch.setattr(cache, "cache_folder", lambda: None)
    assert run_kernel(tiny_kernel()) == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("damage", ["cut off", "changed", "another machine's"])
def test_a_damaged_file_is_compiled_anew(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert run_kernel(tiny_kernel()) == 2
    (path,) = tmp_path.rglob("*.kernel")
    whole = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(whole[:-100])
    elif damage == "changed":
        path.write_bytes(whole[:-100] + bytes(100))
    else:  # not object code of this processor, with the right digest
        cache.write(path.name, b"not an object")
    assert run_kernel(tiny_kernel()) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert run_kernel(tiny_kernel()) == 2  # from the file again
    assert len(caplog.records) == 2


@pytest.mark.slow
def test_importing_neither_compiles_nor_configures_numba(tmp_path: Path) -> None:
    code = (
        """
        import numba
        names = [n for n in dir(numba.config) if n.isupper()]
        before = {n: getattr(numba.config, n) for n in names}
        import charloom.engines.compiled.train, charloom.engines.compiled.infer
        from charloom.engines.compiled.engine import INFER, TRAIN
        assert not TRAIN._by_signature and not INFER._by_signature
    """
        + COUNT.replace("\n    ", "\n        ")
        + """
        after = {n: getattr(numba.config, n) for n in names}
        assert {n for n in names if before[n] is not after[n] and before[n] != after[n]} == set()
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    """
    )
    done = in_a_new_process(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr


def one(place, value):  # type: ignore[no-untyped-def]
    place[1, 0] += value


def tiny_kernel() -> Kernel:
    return Kernel(one, "a test")


def run_kernel(kernel: Kernel) -> float:
    place = np.zeros((2, 3))
    kernel.compiled((place, 2))(place, 2)
    assert place.sum() == place[1, 0]
    return float(place[1, 0])


HELPED = """
import numpy as np
from charloom.kernels.kernel import Kernel
def one(place, value):
    place[1, 0] += value
Kernel(one, "a test")(np.zeros((2, 3)), 2)
"""


def test_a_second_process_compiles_with_a_notice_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (tmp_path / "charloom.py").write_text("raise MemoryError")  # a user's file, not for us
    monkeypatch.chdir(tmp_path)
    before = seconds_compiling()
    helper.start(HELPED)
    finish_compiling()
    assert seconds_compiling() > before
    assert run_kernel(tiny_kernel()) == 2
    assert len(kernels(tmp_path)) == 1
    (record,) = caplog.records
    assert record.getMessage().startswith("compiling the kernel for a test")


def test_a_second_process_that_fails_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    helper.start("helper.report(helper.BEGINS + 'a test')\nraise MemoryError")
    assert run_kernel(tiny_kernel()) == 2
    finish_compiling()
    assert len(kernels(tmp_path)) == 1


def test_a_second_process_has_the_modules_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("print('found')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path, tmp_path])
    program = "import only_here, sys; print(sys.path)"
    done = subprocess.run(helper.command(program), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["found", str(sys.path[:-1])]


def test_a_kernel_that_cannot_be_compiled_names_numba_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder = cache_folder()
    assert folder is not None
    (folder / cache.file_name("another kernel", "int")).touch()
    monkeypatch.setitem(sys.modules, "charloom.kernels.compiling", None)
    kernel = tiny_kernel()
    kernel.require_compiler()  # trusts the cache
    with pytest.raises(
        CharloomError, match=r"^the kernel for a test needs Numba.*: pip "
    ) as raised:
        run_kernel(kernel)
    assert "--engine reference" in str(raised.value)


def test_a_kernel_is_read_from_the_folder_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, file = tmp_path / "first", tmp_path / "second", tempfile.TemporaryFile

    def full(dir: Path) -> Any:
        if dir == first:
            raise OSError("no space left")
        return file(dir=dir)

    monkeypatch.setattr(cache, "_candidates", lambda: iter([first, second]))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    cache.write("a.kernel", b"code")
    assert kernels(tmp_path) == kernels(second) == ["a.kernel"]
    assert cache.read("a.kernel") == b"code"


def test_wrong_arguments_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernel = tiny_kernel().compiled((np.zeros((2, 3)), 2))
    for wrong in (np.zeros((2, 3), np.float32), np.zeros(6), np.zeros((3, 2)).T):
        with pytest.raises(TypeError, match="contiguous"):
            kernel(wrong, 2)
    with pytest.raises(TypeError, match="arguments"):
        kernel(np.zeros((2, 3)))


def test_without_a_home_there_is_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, temporary = tmp_path / "file", tmp_path / "temporary"
    home.write_text("no folder can be made here")
    temporary.mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(home / name))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    folder = cache_folder()
    assert folder is not None
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o077 == 0
    assert run_kernel(tiny_kernel()) == 2
    assert len(kernels(temporary)) == 1
    # Nor there: the kernel is compiled for this process alone.
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(home))
    assert cache_folder() is None
    assert run_kernel(tiny_kernel()) == 2
    assert "once on this machine" in caplog.records[0].getMessage()
    assert "in every process" in caplog.records[1].getMessage()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs owners of files")
def test_a_folder_that_others_may_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / "charloom"
    folder.chmod(0o777)
    assert cache_folder() != folder
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert cache_folder() != folder


def source_in(place: Path) -> Path:
    """Return a file in one of the cache's places, which can be a file itself."""
    path = place if place.suffix else place / "source.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_all_modules_that_kernels_import_are_sources() -> None:
    package = Path(str(charloom.__file__)).parent
    found = set()
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"^from charloom\.([\w.]+) import", text, re.MULTILINE)
        if path.parent.name != "kernels" and "kernels.compiling" in names:
            found |= {name.replace(".", "/") for name in names}
    assert "kernels/compiling" in found
    assert not {
        name
        for name in found
        if f"{name}.py" not in cache.SOURCES
        and not name.startswith(tuple(f"{source}/" for source in cache.SOURCES))
    }


@pytest.mark.parametrize("folder", cache.SOURCES)
def test_any_source_change_recompiles(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for name in cache.SOURCES:
        source_in(tmp_path / "package" / name).write_text("x = 1")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "package/kernels/cache.py"))
    run_kernel(tiny_kernel())
    run_kernel(tiny_kernel())
    assert len(kernels(tmp_path)) == 1
    source_in(tmp_path / "package" / folder).write_text("x = 2")
    cache._digest_of_sources.cache_clear()
    run_kernel(tiny_kernel())
    assert len(kernels(tmp_path)) == 2


@pytest.mark.slow
def test_processes_that_compile_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(COUNT)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert len(kernels(tmp_path)) == 1
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".part-")]
    again = in_a_new_process(COUNT, NUMBA_CACHE_DIR=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
