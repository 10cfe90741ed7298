"""Values that an option must refuse."""

from collections.abc import Sequence

HUGE = "1" + "0" * 400  # too large for a float


ENDLESS = "9" * 5000  # more digits than Python reads


# --- Options of training --------------------------------------------------------------------------

WHOLE_NUMBERS = ["", " ", "three", "1.5", "1e3", "nan", "inf", "-inf", "0x10", "1,000", "½"]


NUMBERS = ["", " ", "three", "nan", "-nan", "inf", "-inf", "1e400", "1,5", "0x1p3", "1/2", "½"]


def words_that_are_no_choice(choices: Sequence[str]) -> list[str]:
    first = choices[0]
    return [
        "",
        "nonsense",
        first.upper(),
        first.capitalize(),
        first + "s",
        f" {first}",
        "None",
        "0",
    ]


# --- Options of the other commands ----------------------------------------------------------------

NO_ENGINES = words_that_are_no_choice(["reference"])


NO_DEVICES = [*words_that_are_no_choice(["cpu"]), "gpu", "cuda:0"]


NO_THREADS = [*WHOLE_NUMBERS, "0", "-1", "257", HUGE, ENDLESS]


NO_PROTOCOLS = [
    *("", " ", "cold", "cold-", "cold-0", "cold--1", "cold-x", "cold-1.5", "cold-+5", "cold- 5"),
    *("cold-٥", "cold-99999999999999", "cold-" + HUGE, "cold-" + ENDLESS, "COLD-5", "Carried"),
    *("carried-5", "carried ", "adaptive-5", "warm-5", "5"),
]
