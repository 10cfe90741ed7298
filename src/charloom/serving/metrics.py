"""Metrics in Prometheus's text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from charloom.serving.batcher import Batcher

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Value = Callable[[Batcher], int]


def _counter(name: str, text: str) -> Callable[[], CounterMetricFamily]:
    return lambda: CounterMetricFamily(f"charloom_{name}", text, labels=["model"])


def _gauge(name: str, text: str) -> Callable[[], GaugeMetricFamily]:
    return lambda: GaugeMetricFamily(f"charloom_{name}", text, labels=["model"])


_BY_MODEL: tuple[tuple[Callable[[], CounterMetricFamily | GaugeMetricFamily], Value], ...] = (
    (_counter("prompt_characters", "Characters of prompts read."), lambda b: b.stats.read),
    (
        _counter("cached_characters", "Characters of prompts whose state was in the cache."),
        lambda b: b.stats.cached,
    ),
    (_counter("drawn_characters", "Characters sampled."), lambda b: b.stats.sampled),
    (
        _counter("steps", "Steps, each of which samples a character for every text."),
        lambda b: b.stats.steps,
    ),
    (_counter("refused", "Requests for which there was no room."), lambda b: b.stats.refused),
    (_counter("cancelled", "Requests whose client went away."), lambda b: b.stats.cancelled),
    (_gauge("texts_drawing", "Texts that are being sampled."), lambda b: b.active),
    (_gauge("texts_waiting", "Texts that wait."), lambda b: b.waiting),
    (_gauge("cache_bytes", "Memory of the prompts' states."), lambda b: b.cache.bytes),
)


class ServerMetrics(Collector):
    """The metrics of a server, read from its batchers when they are collected.

    They have a registry of their own, so metrics of the process or the platform are not included.

    Args:
        batchers: The batchers by their models' names.
    """

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        self._batchers = batchers
        self._replies: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count_reply(self, path: str, status: int) -> None:
        """Count a reply by its route and status."""
        self._replies[path, status] += 1

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, for the registry."""
        replies = CounterMetricFamily(
            "charloom_replies", "Replies by path and status.", labels=["path", "status"]
        )
        for (path, status), count in sorted(self._replies.items()):
            replies.add_metric([path, str(status)], count)
        yield replies
        for family, value in _BY_MODEL:
            metric = family()
            for name, batcher in self._batchers.items():
                metric.add_metric([name], value(batcher))
            yield metric
