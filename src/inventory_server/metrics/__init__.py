"""What this process counts, and how the whole service tells it to Prometheus."""

from inventory_server.metrics.instruments import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram", "MetricsError"]


class MetricsError(Exception):
    """The address for metrics cannot be served; the sentence says why."""
