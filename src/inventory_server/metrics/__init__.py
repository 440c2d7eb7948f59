"""What this process counts, and how the whole service tells it to Prometheus."""

from inventory_server.metrics.instruments import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
