"""The compiled engine of exported pages is that of its sources."""

import build_player
import pytest


def test_module_was_compiled_from_these_sources() -> None:
    module = build_player.RESULT.read_bytes()
    assert module.startswith(b"\0asm")
    assert module.endswith(build_player.section()), "`make player` compiles it"
    assert len(module) < 50_000  # a page holds it


def test_compiling_again_gives_the_same_bytes() -> None:
    if problem := build_player.missing_compiler():
        pytest.skip(problem)
    assert build_player.build() == build_player.RESULT.read_bytes()
