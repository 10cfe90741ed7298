"""JSON that people can read, and that every reader of JSON reads."""

import json

import pytest

from charloom.json_text import in_ascii, to_json

TEXT = 'Мороз 红楼梦 سلام é\u00a0\u3000😀\u202eab\x7f\x9b\u200b\u2028\ud800\U000e0001\n\t"\\'


def test_characters_are_themselves_and_controls_escaped() -> None:
    assert to_json({"день": [TEXT, 1.5, None]}) == (
        '{"день": ["Мороз 红楼梦 سلام é\u00a0\u3000😀\\u202eab\\u007f\\u009b\\u200b\\u2028\\ud800'
        '\\udb40\\udc01\\n\\t\\"\\\\", 1.5, null]}'
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_both_forms_are_read_back(indent: int | None) -> None:
    value = {"день": [TEXT, {"字": TEXT}], "n": 1}
    text = to_json(value, indent=indent)
    assert json.loads(text) == value
    assert json.loads(in_ascii(text)) == value
    assert in_ascii(text).isascii()
    assert (indent is None) is ("\n" not in text)
    text.encode("utf-8")
