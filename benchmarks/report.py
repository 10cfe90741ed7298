"""The results as a table: on the screen, and in Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.workloads import PEAK_SHARE

Row = dict[str, Any]


def speed(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def ratios(row: Row) -> list[tuple[str, float, float | None, float | None]]:
    """For each comparison: the peer, the ratio, what it must reach, what it aims at, if anything.

    The ratios are those of the row's `ours`, by default charloom with its compiled engine.
    """
    best = {name: found["best"] for name, found in row["systems"].items()}
    result = []
    ours = row.get("ours", "charloom")
    if ours not in best:
        return []
    for peer, must, aim in row["against"]:
        if peer == "best":
            peers = {n: s for n, s in best.items() if not n.startswith("charloom")}
            if not peers:
                continue
            name = max(peers, key=lambda n: peers[n])
            result.append((f"best peer: {name}", best[ours] / peers[name], must, aim))
        elif peer in best:
            result.append((peer, best[ours] / best[peer], must, aim))
    return result


def verdict(value: float, must: float, aim: float) -> str:
    return "aim" if value >= aim else "must" if value >= must else "MISSED"


def markdown(report: Row) -> str:
    machine = report["machine"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    lines = [
        "# charloom beside its peers",
        "",
        f"{report['date']}, {gpu}{machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "",
        f"Text: {report['text']}, {report['vocabulary']} distinct characters. Characters per "
        f"second: predictions, T·B a step. Medians of {report['rounds']} rounds, in which the "
        "systems take turns, each in a process of its own; for each the better of its thread "
        "counts (in brackets). float32; in training everything is included: the batch, forward, "
        "backward, clipping, the optimizer's update.",
        "",
    ]
    if "device" in report:
        lines += [
            f"charloom stands for its compiled engine, on the CPU; all the others compute on "
            f"{report['device']}, with bf16 in products of bfloat16 instead. A round ends when the "
            "device has done what it was given.",
            "",
        ]
    names = list(dict.fromkeys(n for row in report["rows"] for n in row["systems"]))
    has_aims = any(must is not None for row in report["rows"] for _, _, must, _ in ratios(row))
    aims = [" must, aim |"] if has_aims else []
    lines.append("| work | " + " | ".join(names) + " | ratio |" + "".join(aims))
    lines.append("| --- " * (len(names) + 2 + len(aims)) + "|")
    for row in report["rows"]:
        cells = []
        for name in names:
            found = row["systems"].get(name)
            cells.append(f"{speed(found['best'])} ({found['threads']})" if found else "")
        compared = ratios(row)
        cells.append("; ".join(f"{value:.2f} × {name}" for name, value, _, _ in compared))
        if has_aims:
            verdicts = (
                f"{must:g}, {aim:g}: {verdict(value, must, aim)}"
                for _, value, must, aim in compared
                if must is not None and aim is not None
            )
            cells.append("; ".join(verdicts))
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    lines += ["", *_physical_limit(report), *_memory(report, names), "", *_first_calls(report)]
    return "\n".join(lines).rstrip() + "\n"


def _physical_limit(report: Row) -> list[str]:
    peaks = report["peak"]
    if not peaks:
        return []
    lines = [
        "## The distance from the physical limit",
        "",
        "The fastest square float32 product (n = 512, 1024, 2048), the median over the rounds of "
        "the same run, operations per second: "
        + "; ".join(
            f"{threads} thread{'s' if int(threads) > 1 else ''}: "
            + ", ".join(f"{name} {value / 1e9:.0f} G" for name, value in found.items())
            for threads, found in peaks.items()
        )
        + ".",
        "",
        "Shares are of the faster library's, in the row's own rounds. Arithmetic is that of the "
        "products; bytes are those that a character touches at least (benchmarks/workloads.py says "
        "what is counted).",
        "",
        "| work | operations a character | charloom, G a second | share of the peak | bytes a "
        "character |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        done = row["operations"] * row["systems"]["charloom"]["best"]
        share = row["share_of_peak"]
        targets = PEAK_SHARE.get(row["name"])
        note = f" ({verdict(share, *targets)}: must 70%, aim 82%)" if targets else ""
        lines.append(
            f"| {row['name']} | {row['operations']:,} | {done / 1e9:.1f} | {share:.0%}{note} | "
            f"{row['bytes']:,} |"
        )
    return [*lines, ""]


def _memory(report: Row, names: list[str]) -> list[str]:
    lines = [
        "## Peak memory, MB",
        "",
        "Of the process; of what computes on a GPU, its tensors there.",
        "",
        "| work | " + " | ".join(names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for row in report["rows"]:
        cells = [
            f"{row['systems'][n]['peak_bytes'] / 1e6:,.0f}" if n in row["systems"] else ""
            for n in names
        ]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return lines


def _first_calls(report: Row) -> list[str]:
    if "first_calls" not in report:
        return []
    lines = [
        "## First calls, seconds, imports aside",
        "",
        "| cell | training, cold | training, warm | sampling, cold | sampling, warm |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell, found in report["first_calls"].items():
        numbers = (found[w][c] for w in ("training", "sampling") for c in ("cold", "warm"))
        lines.append(f"| {cell} | " + " | ".join(f"{n:.2f}" for n in numbers) + " |")
    lines += ["", f"`charloom --help`: {report['help']:.2f} s."]
    return lines
