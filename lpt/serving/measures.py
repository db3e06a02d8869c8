"""What a server counts, for Prometheus; no text is among it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Measures:
    """Counters of one server."""

    def __init__(self) -> None:
        """All are 0."""
        self.registry = CollectorRegistry()
        self.requests = Counter("lpt_requests", "Requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "lpt_request_seconds", "Time to answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.rows = Counter("lpt_rows", "Texts answered", ["task"], registry=self.registry)
        self.batch = Histogram("lpt_batch_rows", "Rows answered together", buckets=ROWS, registry=self.registry)
        self.waiting = Gauge("lpt_waiting_rows", "Rows that wait", registry=self.registry)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
