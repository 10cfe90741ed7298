"""Object code is loaded without LLVM where its format is known, else by LLVM's linker."""

import ctypes
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from charloom.kernels import loading, processor
from charloom.kernels.compiling import compile_kernel
from charloom.kernels.kernel import ENTRY, CompiledKernel
from charloom.kernels.loading import load_code

ELF = sys.platform == "linux" and processor.machine() == "x86_64"


def add_logarithms(numbers, total):  # type: ignore[no-untyped-def]
    for number in numbers:
        total[0] += math.log(number) if number > 1 else 1 / number


@pytest.fixture(scope="module")
def code() -> bytes:
    return compile_kernel(add_logarithms, (np.ones(3), np.zeros(1)), ENTRY)


def run(address: int) -> float:
    numbers, total = np.array([0.25, 2.0, 3.0]), np.zeros(1)
    CompiledKernel(address, (numbers, total))(numbers, total)
    return float(total[0])


@pytest.mark.skipif(not ELF, reason="LLVM's linker loads the object code of this machine")
def test_object_code_is_loaded_as_llvm_loads_it(code: bytes) -> None:
    expected = 4 + np.log(2.0) + np.log(3.0)
    assert run(loading._load(code, ENTRY)) == run(loading._link(code, ENTRY))
    assert run(load_code(code, ENTRY)) == pytest.approx(expected)


@pytest.mark.skipif(not ELF, reason="changes an ELF object")
def test_llvm_loads_object_code_of_another_kind(code: bytes) -> None:
    begin = int(np.frombuffer(code, loading._HEADER, 1)["sections"][0])
    sections = np.frombuffer(code, loading._SECTION, (len(code) - begin) // 64, begin).copy()
    chosen = np.flatnonzero(sections["flags"] & 2)[-2]
    sections["align"][chosen] = 128
    changed = code[:begin] + sections.tobytes()
    with pytest.raises(loading._UnknownFormatError):
        loading._load(changed, ENTRY)
    assert run(load_code(changed, ENTRY)) == run(load_code(code, ENTRY))


@pytest.mark.skipif(not ELF, reason="changes an ELF object")
@pytest.mark.parametrize("kind", ["absolute", "common", "dropped"])
def test_a_symbol_outside_of_memory_is_left_to_llvm(code: bytes, kind: str) -> None:
    header = np.frombuffer(code, loading._HEADER, 1)[0]
    count, begin = int(header["section_count"]), int(header["sections"])
    sections = np.frombuffer(code, loading._SECTION, count, begin)
    (table,) = sections[sections["type"] == loading._SYMBOLS]
    dropped = int(np.flatnonzero(sections["flags"] & 2 == 0)[-1])
    section = {"absolute": 0xFFF1, "common": 0xFFF2, "dropped": dropped}[kind]
    symbols = loading._content(code, table, loading._SYMBOL).copy()
    relocated = [
        loading._content(code, part, loading._RELOCATION)["symbol"]
        for part in sections[sections["type"] == loading._RELOCATIONS]
        if sections[part["info"]]["type"] != loading._UNWINDING
    ]
    symbols["section"][np.concatenate(relocated)] = section
    at = int(table["offset"])
    changed = code[:at] + symbols.tobytes() + code[at + symbols.nbytes :]
    with pytest.raises(loading._UnknownFormatError):
        loading._load(changed, ENTRY)


@pytest.mark.skipif(not ELF, reason="LLVM's linker loads the object code of this machine")
def test_llvm_looks_for_a_function_that_the_libraries_lack(
    code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> int:
        raise RuntimeError(name)

    monkeypatch.setattr(loading, "_address_in_process", missing)
    with pytest.raises(RuntimeError, match=r"^log"):
        loading._load(code, ENTRY)
    assert run(load_code(code, ENTRY)) == pytest.approx(4 + np.log(6.0))


def test_what_is_no_object_code_or_has_an_unknown_function_is_refused(code: bytes) -> None:
    for wrong, entry in ((b"not an object", ENTRY), (code, "another_function")):
        with pytest.raises(RuntimeError):
            load_code(wrong, entry)
    with pytest.raises(RuntimeError, match="no function charloom_nowhere"):
        loading._address_in_process("charloom_nowhere")


def test_memory_for_code_is_not_writable_at_the_end(code: bytes) -> None:
    if not ELF:
        pytest.skip("LLVM's linker owns the memory")
    address = loading._load(code, ENTRY)
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    for line in lines:
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.split()[1] == "r-xp"
            return
    raise AssertionError(f"no memory at {ctypes.c_void_p(address)}")


def test_the_processor_is_described_with_and_without_llvm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = binding.get_host_cpu_features()
    assert processor.has_avx512() == bool(features.get("avx512f", False))
    assert processor.machine() == binding.get_process_triple().split("-")[0]
    known = processor.description()
    for entries in (None, "processor: 0\n"):
        place = tmp_path / "cpuinfo"
        if entries is not None:
            place.write_text(entries, encoding="utf-8")
        monkeypatch.setattr(processor, "_PROCESSORS", str(place))
        for function in (processor._entries, processor.description):
            function.cache_clear()
        assert processor.description()[2] == binding.get_host_cpu_name()
        assert processor.machine() == known[0]
    monkeypatch.undo()
    for function in (processor._entries, processor.description):
        function.cache_clear()
    assert processor.description() == known
