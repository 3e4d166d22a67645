"""What is counted and timed, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Observed:
    """Of one server: its own registry, so that several can live in one process."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = own = CollectorRegistry()
        said = "Seconds by phase: queue and total of a text or request, shed until it was refused, decode and judge of a batch"
        self.seconds = Histogram("softspoken_phase_seconds", said, ["phase"], buckets=SECONDS, registry=own)
        self.batch = Histogram("softspoken_batch_size", "Texts in a batch", buckets=SIZES, registry=own)
        self.requests = Counter("softspoken_requests", "By path and status", ["path", "status"], registry=own)
        self.guard = Counter("softspoken_guard", "Responses by what the guard did", ["decision"], registry=own)
        self.sheds = Counter("softspoken_sheds", "Not taken on, or not in time", ["status"], registry=own)
        self.gone = Counter("softspoken_clients_gone", "Whose client left before the answer", registry=own)
        self.queue = Gauge("softspoken_queue_texts", "Texts that wait", registry=own)
        self.queue.set_function(waiting)

    def page(self) -> bytes:
        return generate_latest(self.registry)
