"""Sample many texts under thirty constraints, judge each by another program, and time them.

    python benchmarks/constraints.py RUN [--count 10000]

A pattern is judged by Python's `re`, a JSON schema by jsonschema, a grammar by Lark. The model's
vocabulary should have the printable characters of ASCII; what a model does not know is skipped.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from typing import Any

import charloom

VOWELS = r"([^aeiou\n]*[aeiou][^aeiou\n]*)"  # one vowel
HAIKU = rf"{VOWELS}{{5}}\n{VOWELS}{{7}}\n{VOWELS}{{5}}"
PATTERNS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "date in words": r"(March|April|June|July) [12]?[0-9], (19|20)[0-9]{2}",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?",
    "hex color": r"#[0-9a-f]{6}",
    "e-mail shape": r"[a-z]+(\.[a-z]+)?@[a-z]{2,12}\.(com|org|net)",
    "IPv4": r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)",
    "telephone": r"\+[1-9][0-9]{1,2} \([0-9]{3}\) [0-9]{3}-[0-9]{4}",
    "price": r"[1-9][0-9]{0,2}(,[0-9]{3})*\.[0-9]{2}",
    "UUID shape": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "haiku by vowels": HAIKU,
    "acrostic": r"M[^\n]{3,20}\nA[^\n]{3,20}\nY[^\n]{3,20}",
    "ABC header": r"X:[0-9]+\nT:[A-Z][a-z ]{2,20}\nM:[2346]/[48]\nK:[A-G](maj|min)",
    "letters of any script": r"[^\W\d_]{3,12}",
    "word and digits": r"\w+\s\d{1,3}",
    "no letter e": r"[^e\n]{20,40}",
    "sentence": r"[A-Z][a-z]*( [a-z]+[,;]?){2,8} [a-z]+[.!?]",
    "alternating": r"(?:[aeiou][^aeiou\W]){3,6}",
    "repetition": r"(ha){2,8}!",
    "lazy": r"a.*?b.{0,3}?c",
    "ignoring case": r"(?i:yes|no|maybe)",
    "list": r"- [a-z ]+(\n- [a-z ]+){2,4}",
    "CSV row": r"[a-z]+,[0-9]+,(true|false)",
    "path": r"(/[a-z_]{1,8}){1,5}\.txt",
    "anchors": r"^[a-z]{4}$",
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SCHEMAS = {
    "JSON record": PERSON,
    "JSON numbers": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 4},
    "JSON choice": {"enum": ["red", "green", 1, None, {"a": True}]},
}
GRAMMARS = {
    "balanced brackets": 'start: "(" start ")" start | "a"',
    "sums": 'start: term ("+" term)*\nterm: /[0-9]+/ | "(" start ")"',
    "palindrome": 'start: "a" start "a" | "b" start "b" | "c"',
}


def judges() -> dict[str, tuple[dict[str, Any], Callable[[str], bool]]]:
    """Return every constraint with the options of a sample and a judge of its texts."""
    import jsonschema
    import lark

    def meets(schema: Any) -> Callable[[str], bool]:
        validator = jsonschema.Draft202012Validator(schema)
        return lambda text: validator.is_valid(json.loads(text))

    def parses(grammar: str) -> Callable[[str], bool]:
        parser = lark.Lark(grammar, parser="earley")
        return lambda text: parser.parse(text) is not None

    found: dict[str, tuple[dict[str, Any], Callable[[str], bool]]] = {}
    for name, pattern in PATTERNS.items():
        matcher = re.compile(pattern)
        found[name] = {"match": pattern}, lambda text, m=matcher: m.fullmatch(text) is not None
    for name, schema in SCHEMAS.items():
        found[name] = {"json_schema": schema}, meets(schema)
    for name, grammar in GRAMMARS.items():
        found[name] = {"grammar": grammar}, parses(grammar)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--only", help="names that contain this text")
    arguments = parser.parse_args()
    model = charloom.load(arguments.run, threads=1)
    wrong = total = 0
    for name, (options, judge) in judges().items():
        if arguments.only is not None and arguments.only not in name:
            continue
        begin = time.perf_counter()
        try:
            request = model.stream(length=arguments.length, **options).request
        except charloom.CharloomError as error:
            print(f"{name:<24} skipped: {error}")
            continue
        compiled = time.perf_counter()
        assert request is not None
        documents = model.sample_documents(
            arguments.count, length=arguments.length, seed=1, **options
        )
        seconds = time.perf_counter() - compiled
        failed = sum(not judge(document.characters) for document in documents)
        characters = sum(len(document.characters) for document in documents)
        wrong += failed
        total += len(documents)
        print(
            f"{name:<24} {failed} of {len(documents):,} do not match; "
            f"{1000 * (compiled - begin):.0f} ms to compile, {characters / seconds:,.0f} "
            "characters/s",
            flush=True,
        )
    print(f"{wrong:,} of {total:,} texts do not match")


if __name__ == "__main__":
    main()
