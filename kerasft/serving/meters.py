"""Figures of the server for Prometheus; each server has its own."""

from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SIZES = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """The figures.

    Attributes:
        waiting: number of images that wait.
        version: number of the version that is served.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        add: dict[str, Any] = {"registry": self._registry, "namespace": "kerasft"}
        self._requests = Counter(
            "requests", "Requests by what they asked for and by status.", ("asked", "status"), **add
        )
        self._request_seconds = Histogram(
            "request_seconds",
            "Time from a request's head to its answer.",
            ("asked",),
            buckets=_SECONDS,
            **add,
        )
        self._images = Counter("images", "Images by how they ended: good or bad.", ("how",), **add)
        self._batch_images = Histogram(
            "batch_images", "Images computed together.", buckets=_SIZES, **add
        )
        self._batch_seconds = Histogram(
            "batch_seconds", "Time that a batch took to compute.", buckets=_SECONDS, **add
        )
        self._wait_seconds = Histogram(
            "wait_seconds",
            "Time that the first image of a batch waited for it.",
            buckets=_SECONDS,
            **add,
        )
        self.waiting = Gauge("waiting_images", "Images that wait to be computed.", **add)
        self.version = Gauge("model_version", "Version of the model that is served.", **add)

    def request(self, asked: str, status: int, seconds: float) -> None:
        """Counts a request, by a word for what it asked for, its status and its time."""
        self._requests.labels(asked, str(status)).inc()
        self._request_seconds.labels(asked).observe(seconds)

    def images(self, good: int, bad: int) -> None:
        """Counts images that were answered, and refused ones."""
        self._images.labels("good").inc(good)
        self._images.labels("bad").inc(bad)

    def batch(self, images: int, seconds: float, waited: float) -> None:
        """Counts a batch."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)
        self._wait_seconds.observe(waited)

    def to_text(self) -> bytes:
        """Writes all figures as Prometheus reads them."""
        return generate_latest(self._registry)
