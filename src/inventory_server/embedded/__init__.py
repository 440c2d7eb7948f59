"""PostgreSQL and a Redis-compatible server from wheels, for a machine that has neither.

Both keep everything below one directory, listen on loopback with a password made up for them, and are stopped with the
process that started them. For Linux and macOS; production brings servers of its own.
"""

from inventory_server.embedded.keeping import kept
from inventory_server.embedded.postgres import EmbeddedPostgres
from inventory_server.embedded.process import EmbeddedError
from inventory_server.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis", "kept"]
