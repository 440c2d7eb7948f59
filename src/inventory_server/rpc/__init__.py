"""gRPC: what comes in over the wire is parsed, handed to the inventory, and its answer rendered."""
