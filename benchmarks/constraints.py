"""Sample many texts under constraints and judge each by another program; measure the speed.

    python -m benchmarks.constraints RUN                  10,000 texts of each constraint
    python -m benchmarks.constraints RUN --speed          characters per second at 64 texts
    python -m benchmarks.constraints RUN --suite FOLDER   the JSON-Schema-Test-Suite's cases

A pattern is judged by Python's `re`, a JSON schema by jsonschema, a grammar by Lark. They come
with `pip install 'charloom[bench,constrain]'`. A constraint whose characters the model does not
know is skipped with the reason. FOLDER is that of the draft, such as tests/draft2020-12.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import charloom
from charloom.constraints.automaton import Automaton
from charloom.constraints.options import ConstraintOptions
from charloom.constraints.protocol import Constraint
from charloom.language_model import LanguageModel
from charloom.prediction.side_by_side import sample_side_by_side
from charloom.serving.batcher import Batcher
from charloom.serving.requests import Request
from charloom.text.vocabulary import Vocabulary

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
    "Cyrillic words": r"[А-Яа-яё]+( [А-Яа-яё]+){2,5}\.",
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
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
}
TREE = {
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#"}},
    "type": "object",
    "required": ["a"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {
    "JSON record": PERSON | {"additionalProperties": False},
    "JSON open record": PERSON,
    "JSON object": {"type": "object"},
    "JSON numbers": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 4},
    "JSON choice": {"enum": ["red", "green", 1, None, {"a": True}]},
    "JSON tree": TREE,
    "JSON multiples": {"type": "array", "items": {"type": "integer", "multipleOf": 7}},
}
GRAMMARS = {
    "balanced brackets": 'start: "(" start ")" start | "a"',
    "sums": 'start: term ("+" term)*\nterm: /[0-9]+/ | "(" start ")"',
    "palindrome": 'start: "a" start "a" | "b" start "b" | "c"',
}
SPEED: dict[str, dict[str, Any]] = {
    "free": {},
    "alphabet": {"alphabet": "[ -~]"},
    "regex": {"match": r"([A-Za-z']+[ ,.;:!?\n]{1,3})*"},
    "JSON schema": {
        "json_schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "tags": {"type": "string"}},
            "required": ["name", "tags"],
        },
        "forbid": '"}',  # so that texts are as long as those of the others
    },
}
STREAMS, CHARACTERS = 64, 200


def judges() -> Iterator[tuple[str, dict[str, Any], Callable[[str], bool]]]:
    """Yield every constraint: its name, the options of a sample and a judge of its texts."""
    import jsonschema
    import lark

    for name, pattern in PATTERNS.items():
        matcher = re.compile(pattern)
        yield name, {"match": pattern}, lambda text, m=matcher: m.fullmatch(text) is not None
    for name, schema in SCHEMAS.items():
        validator = jsonschema.Draft202012Validator(schema)
        yield name, {"json_schema": schema}, lambda text, v=validator: v.is_valid(json.loads(text))
    for name, grammar in GRAMMARS.items():
        parser = lark.Lark(grammar, parser="earley")
        yield name, {"grammar": grammar}, lambda text, p=parser: p.parse(text) is not None


def judge_samples(model: LanguageModel, arguments: argparse.Namespace) -> None:
    """Sample texts under every constraint, and print how many do not meet it."""
    wrong = total = 0
    for name, options, judge in judges():
        if arguments.only is not None and not re.search(arguments.only, name):
            continue
        begin = time.perf_counter()
        try:
            model.stream(length=arguments.length, **options)
        except charloom.CharloomError as error:
            print(f"{name:<24} skipped: {error}", flush=True)
            continue
        compiled = time.perf_counter()
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


def measure_speed(model: LanguageModel, rounds: int) -> None:
    """Print characters per second of 64 texts, in the rows of a batch and in the server's loop."""
    rates: dict[tuple[str, str], list[float]] = {}
    batcher = Batcher(model.predictor, model.vocabulary)
    for number in range(rounds + 1):
        for name, options in SPEED.items():
            request = model.stream(length=CHARACTERS, seed=1, **options).request
            begin = time.perf_counter()
            found = sample_side_by_side(
                model.predictor, model.vocabulary, request, range(STREAMS), STREAMS
            )
            sampled = sum(len(document.characters) for document in found)
            side = sampled / (time.perf_counter() - begin)
            begin = time.perf_counter()
            first = np.array([model.vocabulary.start_id], model.vocabulary.id_type)
            answers = batcher.submit(
                *(
                    Request(first, CHARACTERS, constraints=request.constraints, seed=seed)
                    for seed in range(STREAMS)
                )
            )
            sampled = sum(len(piece.text) for answer in answers for piece in answer.wait())
            served = sampled / (time.perf_counter() - begin)
            if number:  # the first round warms up
                rates.setdefault(("side by side", name), []).append(side)
                rates.setdefault(("served", name), []).append(served)
    batcher.close()
    for (way, name), found in rates.items():
        best, free = max(found), max(rates[way, "free"])
        print(
            f"{way:<13} {name:<12} {best:>10,.0f} characters/s, {100 * (1 - best / free):5.1f}% "
            f"slower than free ({min(found):,.0f} to {best:,.0f})"
        )


def contains(constraint: Constraint, ids: list[int]) -> bool:
    """Return whether a constraint contains a text."""
    if isinstance(constraint, Automaton):
        return constraint.contains(ids)
    matcher = constraint.start().matcher.deep_copy()
    return matcher.validate_tokens(ids) == len(ids) and (
        not ids or (matcher.consume_tokens(ids) and matcher.is_accepting())
    )


def run_suite(folder: Path, count: int) -> None:
    """Compile every schema of the suite, and count the verdicts on its cases.

    Every invalid value of a schema that is claimed must be rejected, and every text that is sampled
    must be valid. A valid value can be rejected: properties come in the schema's order.
    """
    import jsonschema

    vocabulary = Vocabulary(tuple(map(chr, range(256))), as_bytes=True)
    totals: Counter[str] = Counter()
    generator = np.random.default_rng(1)
    for path in sorted(folder.glob("*.json")):
        print(f"{path.stem} ...", flush=True)
        for group in json.loads(path.read_text(encoding="utf-8")):
            schema = group["schema"]
            try:
                read = ConstraintOptions(json_schema=schema).read(vocabulary, str)
            except charloom.CharloomError:
                totals["schemas that are refused"] += 1
                continue
            assert read is not None
            assert read.constraint is not None
            kind = "automata" if isinstance(read.constraint, Automaton) else "grammars"
            totals[f"schemas that are claimed, as {kind}"] += 1
            for case in group["tests"]:
                text = json.dumps(case["data"], ensure_ascii=False)
                inside = contains(read.constraint, list(text.encode()))
                judged = "valid" if case["valid"] else "invalid"
                totals[f"{judged} values, {'accepted' if inside else 'rejected'}"] += 1
                if inside and not case["valid"]:
                    print(f"accepted in {path.stem}, {group['description']}, {text}")
            validator = jsonschema.Draft202012Validator(schema)
            for text in (sample_evenly(read.constraint, generator) for _ in range(count)):
                try:
                    valid = validator.is_valid(json.loads(text))
                except Exception:  # a pattern of another language, or a schema elsewhere
                    totals["sampled texts, which the judge cannot judge"] += 1
                    continue
                totals[f"sampled texts, {'valid' if valid else 'invalid'}"] += 1
                if not valid:
                    print(f"sampled in {path.stem}, {group['description']}, {text}")
    for name, number in sorted(totals.items()):
        print(f"{number:>6,} {name}")


def sample_evenly(constraint: Constraint, generator: np.random.Generator) -> str:
    """Return a text of a constraint, each of whose bytes is any of the allowed ones."""
    state, left, ids = constraint.start(), constraint.least + 30, list[int]()
    while not constraint.must_end(state):
        if constraint.may_end(state) and generator.random() < 0.2:
            break
        allowed = np.flatnonzero(constraint.allowed(state, left))
        if not len(allowed):
            break
        id_ = int(generator.choice(allowed))
        after = constraint.advance(state, id_, left - 1)
        if after is None:
            continue
        state, left = after, left - 1
        ids.append(id_)
    return bytes(ids).decode()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.constraints", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run", nargs="?", help="folder of a run or a checkpoint")
    parser.add_argument("--count", type=int, default=10_000, help="texts of each constraint")
    parser.add_argument("--length", type=int, default=80, help="characters of a text, at most")
    parser.add_argument("--only", help="regular expression that a constraint's name contains")
    parser.add_argument("--speed", action="store_true", help="measure the speed instead")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of the speed")
    parser.add_argument("--suite", type=Path, metavar="FOLDER", help="run the suite's cases")
    arguments = parser.parse_args()
    if arguments.suite is not None:
        run_suite(arguments.suite, min(arguments.count, 20))
        return
    if arguments.run is None:
        parser.error("pass a run, or --suite")
    model = charloom.load(arguments.run, threads=1)
    if arguments.speed:
        measure_speed(model, arguments.rounds)
    else:
        judge_samples(model, arguments)


if __name__ == "__main__":
    main()
