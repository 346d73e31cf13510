"""heliosd: pushes the events of a Raft cluster to people and programs as they happen."""

__version__ = "0.1.0"
