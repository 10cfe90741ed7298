"""The texts that tests train on, and HTML that must not do anything."""

import numpy as np

WOODS = "The woods are lovely, dark and deep,\nund schön → 字 🦉\n" * 30
QUOTING_WOODS = "The woods are lovely, dark and deep, 'und' schön → 字\n" * 60
PROMISES = "The woods are lovely, dark and deep,\nBut I have promises to keep.\n" * 20
CATS_AND_DOGS = "The cat sat on the mat, and the dog sat on the log.\n" * 150
EVERY_LABEL = 'The cat said "No (or yes), 42." to IT.\n  And so on & so forth <b>on</b>.\n' * 40
TIMES_TABLES = "".join(f"{i} times {j} is {i * j}\n" for i in range(30) for j in range(30))
EINMALEINS = "".join(f"{i} mal {j} ist {i * j}, schön\n" for i in range(30) for j in range(30))
SQUARES = "".join(f"{i} times {i} is {i * i}, and that is that;\n" for i in range(400))
PANGRAMS = (
    "the quick brown fox jumps over the lazy dog; pack my box with five dozen jugs\n"
    "how vexingly quick daft zebras jump, and sphinx of black quartz, judge my vow\n"
) * 12

SCRIPT = "<script>"
SCRIPTED_WOODS = (
    "<script>alert('the woods are lovely, dark & deep')</script>\nund schön → 字\n" * 40
)
PLANTED = "<script>window.planted=1</script> & &amp; <img src=x onerror=window.planted=1>"

_WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "tree",
    "and",
    "then",
    "it",
    "was",
    "very",
]
RANDOM_SENTENCES = " ".join(np.random.default_rng(1).choice(_WORDS, 4_000)) + "\n"
_POEM = "so much depends upon a red wheel barrow glazed with rain water beside the white chickens"


def wheel_barrows(words: int) -> str:
    """Words of a poem in any order."""
    return " ".join(np.random.default_rng(2).choice(_POEM.split(), words))
