"""Round trips of any bytes, and damaged ones."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charloom
from charloom.compression import api
from charloom.compression.adaptive import read_text, write_text
from charloom.compression.characters import Alphabet, codes_of_bytes
from charloom.compression.container import (
    BYTES,
    CHARACTERS,
    MARK,
    STORED,
    Header,
    read_file,
    write_file,
)
from charloom.compression.network import MULTIPLE, NetworkPlan
from charloom.compression.planning import PLANS, plan_for
from charloom.compression.text_coder import LEARNED_BLOCK
from helpers.texts import WOODS

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "\n"]


def some_text(generator: random.Random) -> bytes:
    """Return one of many kinds of bytes: text, repetition, noise, other scripts."""
    length = generator.randrange(0, 300)
    kind = generator.randrange(7)
    if kind == 0:
        return generator.randbytes(length)
    if kind == 1:
        return " ".join(generator.choices(WORDS, k=length)).encode()
    if kind == 2:
        return bytes([generator.randrange(256)]) * length
    if kind == 3:
        return "".join(chr(generator.randrange(0x400, 0x460)) for _ in range(length)).encode()
    if kind == 4:
        return "".join(chr(generator.randrange(0x4E00, 0x9FFF)) for _ in range(length)).encode()
    if kind == 5:
        return "\r\n\0\ufeff\U0001f600é".join(generator.choices(WORDS, k=length)).encode()
    return "привет, мир\n".encode()[: generator.randrange(20)] * (length // 8)


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_are_restored_and_hardly_grow(seed: int) -> None:
    text = some_text(random.Random(seed))
    packed = charloom.compress(text)
    assert charloom.decompress(packed) == text
    assert len(packed) <= len(text) + 64


@pytest.mark.extended
@pytest.mark.parametrize("part", range(40))
def test_two_thousand_texts_and_hostile_files(part: int) -> None:
    """Restore fifty texts, and read as many damaged, foreign and made-up files."""
    for seed in range(1000 + 50 * part, 1050 + 50 * part):
        generator = random.Random(seed)
        text = some_text(generator)
        packed = charloom.compress(text)
        assert charloom.decompress(packed) == text
        assert len(packed) <= len(text) + 64
        hostile = bytearray(packed)
        for _ in range(generator.randrange(1, 4)):
            hostile[generator.randrange(len(hostile))] = generator.randrange(256)
        if generator.random() < 0.3:
            hostile = bytearray(generator.randbytes(40))
        if generator.random() < 0.3:
            hostile[: len(MARK)] = MARK
        with contextlib.suppress(charloom.CharloomError):  # A last bit can make no difference.
            assert charloom.decompress(bytes(hostile), most_bytes=10_000) == text


@pytest.mark.parametrize("length", [4_001, 2**40, 2**62])
def test_a_file_cannot_claim_much(length: int) -> None:
    """A right check does not make a header right: no table is made for sizes that it claims."""
    for header in (
        Header(CHARACTERS, length, length, 60, 64),
        Header(BYTES, 4_000, 4_000, 60, length),
        Header(BYTES, 4_000, 4_000, length, 64),
        Header(CHARACTERS, 4_000, 4_000 - length, 60, 64),
        Header(CHARACTERS, 4_000, 4_000, 60, 64, length, 8),
        Header(CHARACTERS, 4_000, 4_000, 60, 64, 2, length),
        Header(CHARACTERS, 4_000, 4_000, 3_000, 64, 1024 // MULTIPLE, 8),
        Header(CHARACTERS, 4_000, 4_000, 60, 64, 11, 80),  # more than are ever written
        Header(CHARACTERS, 4_000, 4_000, 60, 64, 10, 81),
        Header(STORED, length),
    ):
        with pytest.raises(charloom.CharloomError):
            charloom.decompress(write_file(header, b"content", b""), most_bytes=4_000)


@pytest.mark.parametrize("length", [2**36, 2**62])
def test_no_limit_lets_a_file_claim_more_than_can_be_written(length: int) -> None:
    packed = write_file(Header(CHARACTERS, length, length, 60, 64), b"content" * 9, b"")
    with pytest.raises(charloom.CharloomError, match="damaged or incomplete"):
        charloom.decompress(packed, most_bytes=2**63)


def test_a_text_ends_with_its_bytes() -> None:
    """A header that claims more characters than there are bytes for costs no time."""
    text = (WOODS * 3).encode()
    header, content, _ = read_file(charloom.compress(text))
    header = header._replace(size=header.size + 5_000_000, length=header.length + 5_000_000)
    coded: list[int] = []
    with pytest.raises(charloom.CharloomError, match="damaged or incomplete"):
        charloom.decompress(
            write_file(header, content, text), on_progress=lambda _, done, __: coded.append(done)
        )
    assert not coded or max(coded) < 100_000


def test_noise_is_stored_at_once() -> None:
    noise = random.Random(1).randbytes(300_000)
    coded: list[int] = []
    packed = charloom.compress(noise, on_progress=lambda *_: coded.append(1))
    assert not coded
    assert len(packed) <= len(noise) + 64
    assert charloom.decompress(packed) == noise
    assert not api._is_noise(noise + noise[:200_000])


def test_only_texts_and_bytes_are_compressed() -> None:
    with pytest.raises(charloom.CharloomError, match="type int"):
        charloom.compress(5)  # type: ignore[arg-type]
    packed = charloom.compress(memoryview(b"woods"))  # type: ignore[arg-type]
    assert charloom.decompress(bytearray(packed)) == b"woods"
    with pytest.raises(charloom.CharloomError, match="of at most 10 bytes has fewer"):
        charloom.decompress(b"\x8cloom" * 20, most_bytes=10)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_restored(text: str) -> None:
    assert charloom.decompress(charloom.compress(text)) == text.encode()


def test_a_text_becomes_shorter() -> None:
    packed = charloom.compress(WOODS * 20)
    assert len(packed) < 0.25 * len(WOODS * 20)


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_recognized(seed: int) -> None:
    generator = random.Random(seed)
    text = (WOODS * 3).encode()
    packed = bytearray(charloom.compress(text))
    if seed % 2:
        packed[generator.randrange(len(packed))] ^= 1 << generator.randrange(8)
    else:
        del packed[generator.randrange(len(packed)) :]
    with pytest.raises(charloom.CharloomError) as caught:
        charloom.decompress(bytes(packed))
    assert "\n" not in str(caught.value)


def test_a_large_text_is_refused_before_it_is_restored() -> None:
    packed = charloom.compress(b"a" * 5000)
    with pytest.raises(charloom.CharloomError, match="5,000 bytes, above the limit of 4,999"):
        charloom.decompress(packed, most_bytes=4999)
    assert len(charloom.decompress(packed, most_bytes=5000)) == 5000


def test_a_time_limit_never_makes_a_short_text_longer() -> None:
    text = (WOODS * 2).encode()
    packed = charloom.compress(text, minutes=5)
    assert len(packed) <= len(charloom.compress(text))
    assert charloom.decompress(packed) == text
    with pytest.raises(charloom.CharloomError, match="minutes is 0"):
        charloom.compress(text, minutes=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_restores_the_text_that_it_learned(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write with some threads, read with others: the bytes do not depend on their number."""
    alphabet, ids = Alphabet.of(codes_of_bytes((WOODS * 12).encode()), True)
    plan = NetworkPlan(32, 20)
    assert len(ids) > 3 * LEARNED_BLOCK
    monkeypatch.setattr("charloom.compression.text_coder.available_cores", lambda: threads)
    packed = write_text(alphabet, ids, 64, plan)
    assert packed != write_text(alphabet, ids, 64, NetworkPlan())
    monkeypatch.setattr("charloom.compression.text_coder.available_cores", lambda: 3 - threads)
    _, restored = read_text(packed, len(alphabet.codes), len(ids), 64, plan, True)
    assert (restored == ids).all()


def test_a_time_limit_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is coded as characters and as bytes has one network."""
    planned: list[int] = []
    monkeypatch.setattr(api, "plan_for", lambda *sizes: planned.append(sizes[0]) or NetworkPlan(32))
    text = "Мороз и солнце; день чудесный!\n" * 5
    assert charloom.decompress(charloom.compress(text, minutes=1)) == text.encode()
    assert planned == [len(text)]


def test_more_time_means_a_larger_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charloom.compression.planning.seconds_of_product", lambda: 4e-11)
    plans = [plan_for(1_000_000, 65, 60 * minutes) for minutes in (0.5, 1, 60)]
    assert [plan.hidden > 0 for plan in plans] == [False, True, True]
    assert [plan.hidden for plan in plans] == sorted(plan.hidden for plan in plans)
    assert len({plan.hidden for plan in plans}) == 3


@pytest.mark.parametrize("hidden", sorted({hidden for hidden, _ in PLANS}))
def test_a_network_of_every_planned_size_is_restored(
    hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "plan_for", lambda *_: NetworkPlan(hidden, 40))
    monkeypatch.setattr(api, "TRIED", 0)  # nothing is coded without the network too
    text = " ".join(random.Random(1).choices(WORDS, k=1000)).encode()
    packed = charloom.compress(text, minutes=1)
    assert read_file(packed)[0].units * MULTIPLE == hidden
    assert charloom.decompress(packed) == text
    # A rate that a reader cannot know from the file would be such an error.
    monkeypatch.setattr(NetworkPlan, "rate", 10 * NetworkPlan(hidden).rate)
    with pytest.raises(charloom.CharloomError, match="damaged"):
        charloom.decompress(packed)
