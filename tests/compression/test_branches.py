"""Files whose tree of decisions is not the Huffman tree."""

import random
from pathlib import Path

import numpy as np
import pytest

import charloom
from charloom.compression import api, branches
from charloom.compression.adaptive import FIRST_GUESSES, MEGABYTE, read_text, write_text
from charloom.compression.branches import code_branches, worthwhile_branches
from charloom.compression.characters import Alphabet, codes_of_characters
from charloom.compression.container import (
    ARITHMETIC,
    BRANCHES,
    CHARACTERS,
    MARK,
    NEWEST,
    Header,
    read_file,
    write_file,
)
from charloom.compression.layout import Damage
from charloom.compression.network import NetworkPlan
from charloom.compression.text_coder import Reader, Writer, code_rows
from charloom.context_mixing.layout import DEEPEST, Tree
from charloom.context_mixing.trees import Arranged, Branches, arranged

DATA = Path(__file__).parents[1] / "data"


def some_syllables(count: int) -> str:
    """Return words in which vowels follow consonants, whatever these are."""
    generator = random.Random(count)
    found = []
    for _ in range(count):
        found += [generator.choice("bcdfghjklmnpqrstvwxz"), generator.choice("aeiou")]
        if generator.random() < 0.3:
            found.append(generator.choice(" \n") + generator.choice(["", "", "A", "E", "O"]))
    return "".join(found)


def alphabet_of(text: str) -> tuple[Alphabet, np.ndarray]:
    codes = codes_of_characters(text.encode())
    assert codes is not None
    return Alphabet.of(codes, False)


def parts(found: Branches, leaves: int) -> set[frozenset[int]]:
    """Return the leaves below each node, which are all that a tree is."""
    below = [frozenset([leaf]) for leaf in range(leaves)]
    for first, second in found:
        below.append(below[first] | below[second])
    return set(below)


def chain(leaves: int) -> Branches:
    """Return the deepest branches."""
    return [(0, 1), *((leaves + i, i + 2) for i in range(leaves - 2))]


MANY = "".join(chr(0x4E00 + i) * (1 + i % 7) for i in range(300))


@pytest.mark.parametrize("leaves", [2, 3, 4, 20, 128])
@pytest.mark.parametrize("text", [some_syllables(2000) + "0123456789", MANY], ids=["few", "many"])
def test_branches_are_restored(text: str, leaves: int) -> None:
    alphabet, ids = alphabet_of(text)
    leaves = min(leaves, len(alphabet.codes))
    found = arranged(alphabet.counts, ids, leaves).branches
    writer = Writer()
    written = code_branches(found, alphabet, writer)
    content = writer.all_bytes()
    assert code_branches(None, alphabet, Reader(content)) == written
    assert parts(written, leaves) == parts(found, leaves)
    least = sum(np.log2(2 * i - 1) for i in range(1, leaves)) / 8
    assert len(content) < 1.1 * least + 2


def test_any_bytes_are_branches_or_damage() -> None:
    alphabet, _ = alphabet_of(MANY)
    for seed in range(200):
        content = random.Random(seed).randbytes(seed)
        try:
            found = code_branches(None, alphabet, Reader(content))
        except Damage:
            continue
        writer = Writer()
        assert code_branches(found, alphabet, writer) == found
        assert code_branches(None, alphabet, Reader(writer.all_bytes())) == found


def test_a_place_that_is_not_in_the_tree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    alphabet, _ = alphabet_of(MANY)
    monkeypatch.setattr(branches, "_places_of", lambda *_: [0, 1, 5, 0])  # of 0 to 4
    writer = Writer()
    with pytest.raises(Damage):
        code_branches(chain(5), alphabet, writer)
    with pytest.raises(Damage):
        code_branches(None, alphabet, Reader(writer.all_bytes()))


def test_the_places_of_65_characters_take_few_bytes() -> None:
    """Take 45 bytes for trees without any structure, and fewer for those of texts."""
    text = "".join(chr(33 + i) * (100 - i) for i in range(65))
    alphabet, _ = alphabet_of(text)
    generator, sizes = random.Random(1), []
    for _ in range(20):
        waiting, found = list(range(65)), []
        while len(waiting) > 1:
            generator.shuffle(waiting)
            found.append((waiting.pop(), waiting.pop()))
            waiting.append(64 + len(found))
        writer = Writer()
        code_branches(found, alphabet, writer)
        sizes.append(len(writer.all_bytes()))
    assert max(sizes) <= 65


@pytest.mark.parametrize("plan", [NetworkPlan(), NetworkPlan(32, 20)], ids=["mixer", "network"])
def test_a_reader_has_the_tree_of_the_writer(
    plan: NetworkPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    alphabet, ids = alphabet_of(some_syllables(2000))
    trees: list[Tree] = []
    make = Alphabet.mixer

    def noted(*arguments: object) -> object:
        mixer = make(*arguments)  # type: ignore[arg-type]
        trees.append(mixer.tree)
        return mixer

    monkeypatch.setattr(Alphabet, "mixer", noted)
    found = worthwhile_branches(alphabet, ids)
    assert found is not None
    content = write_text(alphabet, ids, 64, plan, branches=found)
    size = len(alphabet.codes), len(ids)
    _, restored = read_text(content, *size, 64, plan, False, has_branches=True)
    assert (restored == ids).all()
    assert len(trees) == 2
    for written, read in zip(*trees, strict=True):
        np.testing.assert_array_equal(written, read)
    huffman = make(alphabet, len(ids), 64 * MEGABYTE).tree
    assert not np.array_equal(huffman.children, trees[0].children)


def test_the_better_tree_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (50, 300, 600, 3000, 9000):
        text = some_syllables(count)
        packed = charloom.compress(text)
        assert charloom.decompress(packed) == text.encode()
        with monkeypatch.context() as patch:
            patch.setattr(api, "worthwhile_branches", lambda *_: None)
            huffman = charloom.compress(text)
        header, _, _ = read_file(packed)
        assert header.branches == (count >= 3000)
        assert packed[len(MARK) + 1] == CHARACTERS + BRANCHES * header.branches
        if header.branches:
            assert header.arithmetic == NEWEST  # which older charlooms refuse
            assert len(packed) < len(huffman)
        else:
            assert packed == huffman
            assert header.arithmetic == ARITHMETIC


def test_an_estimate_that_is_wrong_costs_a_short_text_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=2000))
    huffman = charloom.compress(text)
    assert not read_file(huffman).header.branches
    monkeypatch.setattr(api, "worthwhile_branches", lambda *_: chain(30))
    assert charloom.compress(text) == huffman
    monkeypatch.setattr(api, "CODED_TWICE", 0)
    assert len(charloom.compress(text)) > len(huffman)


def test_a_tree_that_is_too_deep_is_neither_written_nor_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alphabet, ids = alphabet_of(MANY * 20)
    deep, found = chain(DEEPEST + 2), arranged(alphabet.counts, ids, 128).branches
    assert alphabet.has_tree(found)
    assert not alphabet.has_tree(deep)
    monkeypatch.setattr(branches, "arranged", lambda *_: Arranged(deep, 1e9, 1.0))
    assert worthwhile_branches(alphabet, ids) is None
    writer = Writer()
    code_rows(alphabet.rows(), writer, FIRST_GUESSES)
    code_branches(deep, alphabet, writer)
    header = Header(
        CHARACTERS, 3 * len(ids), len(ids), len(alphabet.codes), 64, arithmetic=NEWEST,
        branches=True,
    )  # fmt: skip
    with pytest.raises(charloom.CharloomError, match="damaged or incomplete"):
        charloom.decompress(write_file(header, writer.all_bytes() + bytes(900), b""))


def test_damaged_branches_are_refused() -> None:
    text = some_syllables(3000)
    packed = charloom.compress(text)
    header, content, _ = read_file(packed)
    begin = packed.index(content)
    for seed in range(60):
        generator = random.Random(seed)
        damaged = bytearray(packed)
        if seed % 2:
            damaged[generator.randrange(begin, begin + 80)] ^= 1 << generator.randrange(8)
        else:
            del damaged[generator.randrange(begin, begin + 80) :]
        with pytest.raises(charloom.CharloomError, match=r"^the compressed bytes are damaged"):
            charloom.decompress(bytes(damaged))
    for wrong in (
        header._replace(arithmetic=ARITHMETIC),  # which has no branches
        header._replace(alphabet=2),
        header._replace(alphabet=1),
        header._replace(branches=False),
        header._replace(form=0),
    ):
        with pytest.raises(charloom.CharloomError, match=r"^the compressed bytes are damaged"):
            charloom.decompress(write_file(wrong, content, text.encode()))


@pytest.mark.parametrize("name", ["text.loom", "network.loom"])
def test_files_of_earlier_commits_are_restored(name: str) -> None:
    packed = (DATA / "commit_f4d7bb1" / name).read_bytes()
    assert charloom.decompress(packed) == (DATA / "commit_27fece8" / "text.txt").read_bytes()
