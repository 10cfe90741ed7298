"""Texts in other encodings are read, or refused with the encoding that they seem to have."""

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.errors import CharloomError
from charloom.text.corpora import open_text
from charloom.text.encodings import check_encoding, recognized
from charloom.text.format import TextFormat, open_texts
from charloom.text.vocabulary import Vocabulary
from helpers.corpora import refusal, write

RUSSIAN = "Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный.\n" * 20
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n" * 20
CHINESE = "滿紙荒唐言，一把辛酸淚。都云作者痴，誰解其中味？\n" * 20
FRENCH = "L’été, « oui » dit-il – déjà vu à la façade, où naît la forêt.\n" * 20
GERMAN = "Größe, Füße, schöne Straße: wer reitet so spät durch Nacht und Wind?\n" * 20
POLISH = "Zażółć gęślą jaźń, Litwo! Ojczyzno moja! ty jesteś jak zdrowie.\n" * 20
KOREAN = "동해물과 백두산이 마르고 닳도록 하느님이 보우하사 우리나라 만세\n" * 20
GREEK = "Ήταν μια φορά κι έναν καιρό ένας βασιλιάς που είχε τρεις κόρες.\n" * 20


# --- What is read --------------------------------------------------------------------------------

ENCODINGS = {  # with characters that each of them has
    "utf-8": "aé“漢😀",
    "utf-8-sig": "aé“漢😀",
    "utf-16": "aé“漢😀",
    "utf-16-le": "aé“漢😀",
    "utf-32-be": "aé“漢😀",
    "cp1252": "aé“ß",
    "gb18030": "aé“漢😀",
    "shift_jis": "aあ漢ﾖ",
    "koi8-r": "aдЯё",
    "iso2022_jp": "aあ漢",
}


@settings(max_examples=200)
@given(data=st.data(), end=st.sampled_from(["\n", "\r\n", "\r"]), block=st.integers(1, 9))
def test_a_text_is_the_same_in_every_encoding_and_with_all_line_ends(data, end, block):
    encoding = data.draw(st.sampled_from(sorted(ENCODINGS)))
    text = data.draw(st.text(ENCODINGS[encoding] + "\n", max_size=40))
    content = text.replace("\n", end).encode(encoding)
    named = None if encoding.startswith("utf-8") else encoding
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text")
        path.write_bytes(gzip.compress(content) if data.draw(st.booleans()) else content)
        opened = open_text(path, encoding=named, block_size=block)
        assert opened.read() == text == "".join(opened.chunks(3))
        kept = open_text(path, encoding=named, keep_newlines=True, block_size=block)
        assert kept.read() == text.replace("\n", end)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("content", ["plain\n", FRENCH, RUSSIAN, CHINESE, "a\r\nb\n"])
def test_utf_16_and_utf_32_are_recognized(tmp_path, encoding, mark, content):
    path = write(tmp_path / "a.txt", (mark + content).encode(encoding))
    text = open_text(path)
    assert text.read() == content.replace("\r", "")
    assert text.encoding == encoding
    assert next(iter(text.notes)) == f"{str(path)!r} is read as {encoding.upper()}"
    assert open_text(path, raw=True).read() == mark + content


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"a\0",
        b"abc\0def\0ghi\0",
        b"a\0b\0\0c" * 500,
        b"\x1b[31mred\x1b[0m\a\0x\n",
        b"\x7fELF\2\1\1" + b"\0" * 9,
    ],
)
def test_null_bytes_that_are_not_those_of_utf_16(data):
    assert recognized(data) is None


@pytest.mark.parametrize("lines", [0, 50_000])
def test_a_null_character_is_refused_unless_bytes_are_wanted(tmp_path, lines):
    path = write(tmp_path / "a.txt", b"abc\n" * lines + b"ab\0c\n")
    assert f"has a null character in line {lines + 1:,}" in refusal(path)
    assert "--bytes" in refusal(path)
    assert open_text(path, as_bytes=True).read().endswith("ab\0c\n")
    earlier = TextFormat.of_training({"normalize_newlines": False}, as_bytes=False, collection=None)
    assert open_texts([path], earlier).read().endswith("ab\0c\n")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_utf_16_that_is_passed_without_the_order_of_its_bytes(tmp_path, mark):
    for encoding in ("utf-16-le", "utf-16-be"):
        path = write(tmp_path / "a.txt", (mark + FRENCH).encode(encoding))
        assert open_text(path, encoding="utf-16").read() == FRENCH
        assert open_text(path, encoding=encoding).read() == FRENCH


def test_iso_2022_jp_is_no_ascii(tmp_path):
    path = write(tmp_path / "a.txt", JAPANESE.encode("iso2022_jp"))
    assert refusal(path).endswith("pass --encoding iso2022_jp, or train on its bytes with --bytes")
    assert open_text(path, encoding="iso2022_jp").read() == JAPANESE


@pytest.mark.parametrize("name", ["", "nothing", "rot13", "zlib", "idna", "a\0b"])
def test_a_name_that_is_no_encoding(name):
    with pytest.raises(CharloomError, match="which is not an encoding: pass a name such as utf-8"):
        check_encoding(name)


def test_bytes_that_are_invalid_in_the_encoding_that_is_passed(tmp_path):
    path = write(tmp_path / "a.txt", b"abc\nd\x81")
    message = refusal(path, encoding="cp1252")
    assert "is not cp1252 (byte 0x81 in line 2, at byte offset 5)" in message
    assert open_text(path, encoding="cp1252", encoding_errors="replace").read() == "abc\nd\ufffd"


# --- What is suggested ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "cp866", "cp866"),
        (JAPANESE, "shift_jis", "cp932"),
        (JAPANESE, "euc_jp", "euc_jp"),
        (KOREAN, "euc_kr", "cp949"),
        (CHINESE, "big5", "big5"),
        (CHINESE, "gb18030", "gb18030"),
        ("红楼梦第一回" * 300, "gbk", "gb18030"),
        ("姓名,性别\n张三,男\n王芳,女\n李四,女\n" * 20, "gbk", "gb18030"),
        (FRENCH, "cp1252", "cp1252"),
        (GERMAN, "latin-1", "cp1252"),
        (POLISH, "cp1250", "cp1250"),
        (POLISH, "iso8859-2", "iso8859-2"),
        (GREEK, "iso8859-7", "cp1253"),
        ("café\n", "latin-1", "cp1252"),
        ("He said “no” – and it’s done.\n" * 9, "cp1252", "cp1252"),
        ("An English text with one résumé in it.\n" * 9, "cp437", "cp437"),
        ("Åke åkte till Öland på älgjakt\n" * 9, "cp850", "cp437"),
        ("coöperatie en reünie\n", "cp1252", "cp1252"),
        ("░▒▓█ ÄRGER.NFO █▓▒░\n" * 9, "cp437", "cp437"),
    ],
)
def test_an_encoding_that_reads_the_text_is_suggested(tmp_path, text, encoding, expected):
    data = text.encode(encoding)
    message = refusal(write(tmp_path / "a.txt", data))
    suggested = message.rpartition("pass --encoding ")[2]
    assert suggested == expected
    assert data.decode(suggested) == text.encode(encoding).decode(encoding)
    assert open_text(tmp_path / "a.txt", encoding=suggested).read() == text


def test_an_encoding_is_only_suggested_if_the_whole_text_is_valid_in_it(tmp_path):
    data = RUSSIAN.encode("koi8-r") * 40 + JAPANESE.encode("shift_jis")
    message = refusal(write(tmp_path / "a.txt", data))
    suggested = message.rpartition("--encoding ")[2].split()[0]
    assert suggested == "NAME," or data.decode(suggested)


@pytest.mark.parametrize("text", ["hello 😀 world\n", "été 😀 naïve\n", "我 😀 很好\n"])
def test_surrogate_pairs_in_utf_8_are_no_recipe_for_garbage(tmp_path, text):
    halves = [chr(0xD83D) + chr(0xDE00) if c == "😀" else c for c in text]
    data = "".join(halves).encode("utf-8", "surrogatepass") * 30
    for path in (
        write(tmp_path / "a.txt", data),
        write(tmp_path / "cut.txt", data[: data.rfind(b"\xed")]),
    ):
        message = refusal(path)
        assert "looks like CESU-8" in message
        assert "--encoding " not in message


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"caf\xe9 ok\n" + "café\n".encode() * 300, "UTF-8 except for one invalid byte (0xE9 in"),
        (CHINESE.replace("\n", "").encode() + b"\xff" + CHINESE.encode(), "except for one invalid"),
        ("café\n".encode() * 20 + b"\xe2\x80", "where the end of the text cuts a character"),
        (b"abc\n" * 20 + b"\xe2\x80", "where the end of the text cuts a character"),
        ("café\n".encode() * 50 + b"\xe9\n\xe8\n", "except for 2 invalid bytes (the first is 0xE9"),
        (FRENCH.encode() + FRENCH.encode("cp1252"), "is UTF-8 only in part ("),
        (RUSSIAN.encode() + RUSSIAN.encode("cp1251"), "is UTF-8 only in part ("),
    ],
)
def test_invalid_bytes_in_utf_8(tmp_path, data, told):
    path = write(tmp_path / "a.txt", data)
    message = refusal(path)
    assert told in message
    assert message.endswith("pass --encoding-errors replace")
    assert open_text(path, encoding_errors="replace").read() == data.decode("utf-8", "replace")


# --- The texts of a model ------------------------------------------------------------------------


def test_another_text_of_a_model_can_be_utf_8(tmp_path):
    format = TextFormat.of_training({"encoding": "gb18030"}, as_bytes=False, collection=False)
    vocabulary = Vocabulary(tuple(sorted(set(CHINESE))))
    own = write(tmp_path / "own.txt", CHINESE.encode("gb18030"))
    other = write(tmp_path / "other.txt", CHINESE.encode())
    for_model = format.for_model(vocabulary)
    assert open_texts([own], format).read() == open_texts([own], for_model).read() == CHINESE
    text = open_texts([other], for_model)
    assert text.read() == CHINESE
    assert list(text.notes) == [f"{str(other)!r} is read as UTF-8, not as gb18030"]
    assert "but is read as gb18030" in next(iter(open_texts([other], format).notes))


def test_a_model_keeps_the_line_ends_and_the_mark_that_it_knows(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfa\r\nb\r")
    earlier = TextFormat.of_training(
        {"normalize_newlines": False}, as_bytes=False, collection=False
    )
    assert open_texts([path], earlier).read() == "\ufeffa\r\nb\r"
    for characters, expected in {
        "\nab": "a\nb\n",
        "\n\rab": "a\r\nb\r",
        "\nab\ufeff": "\ufeffa\nb\n",
        "\n\rab\ufeff": "\ufeffa\r\nb\r",
    }.items():
        format = earlier.for_model(Vocabulary(tuple(characters)))
        assert open_texts([path], format).read() == expected
    now = TextFormat.of_training({}, as_bytes=False, collection=False)
    assert open_texts([path], now.for_model(Vocabulary(tuple("\n\rab\ufeff")))).read() == "a\nb\n"


def test_line_ends_are_mentioned_once(tmp_path):
    (tmp_path / "texts").mkdir()
    for name, content in {"a": b"a\r\nb", "b": b"c\r\n", "c": b"d\n"}.items():
        write(tmp_path / "texts" / name, content)
    text = open_texts([tmp_path / "texts"], TextFormat())
    assert list(text.documents()) == ["a\nb", "c\n", "d\n"]
    assert list(text.notes) == [
        "Windows line ends are read as line breaks; training with --keep-newlines keeps them"
    ]
    late = open_texts([write(tmp_path / "late", b"a\n" * 40_000 + b"b\rc")], TextFormat())
    assert list(late.notes) == []
    late.read()
    assert list(late.notes) == [
        "carriage returns are read as line breaks; training with --keep-newlines keeps them"
    ]
