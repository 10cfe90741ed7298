"""Metrics in Prometheus's text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from charloom.serving.batcher import Batcher


def prometheus_metrics(models: Any, replies: Counter[tuple[str, int]]) -> Iterator[str]:
    """Lines of Prometheus's text format."""
    yield "# HELP charloom_replies_total Replies by path and status."
    yield "# TYPE charloom_replies_total counter"
    for (path, status), count in sorted(replies.items()):
        yield f'charloom_replies_total{{path="{path}",status="{status}"}} {count}'
    batchers = {model.id: model.batcher for model in models}
    figures: list[tuple[str, str, str, Callable[[Batcher], int]]] = [
        (
            "prompt_characters_total",
            "counter",
            "Characters of prompts read.",
            lambda b: b.counts.read,
        ),
        (
            "cached_characters_total",
            "counter",
            "Characters of prompts whose state was in the cache.",
            lambda b: b.counts.cached,
        ),
        ("drawn_characters_total", "counter", "Characters drawn.", lambda b: b.counts.drawn),
        (
            "steps_total",
            "counter",
            "Steps, each of which draws a character for every text.",
            lambda b: b.counts.steps,
        ),
        (
            "refused_total",
            "counter",
            "Requests for which there was no room.",
            lambda b: b.counts.refused,
        ),
        (
            "cancelled_total",
            "counter",
            "Requests whose client went away.",
            lambda b: b.counts.cancelled,
        ),
        ("texts_drawing", "gauge", "Texts that are being drawn.", lambda b: b.drawing),
        ("texts_waiting", "gauge", "Texts that wait.", lambda b: b.waiting),
        ("cache_bytes", "gauge", "Memory of the prompts' states.", lambda b: b.cache.bytes),
    ]
    for name, kind, text, figure in figures:
        yield f"# HELP charloom_{name} {text}"
        yield f"# TYPE charloom_{name} {kind}"
        for id_, batcher in batchers.items():
            label = id_.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            yield f'charloom_{name}{{model="{label}"}} {figure(batcher)}'
