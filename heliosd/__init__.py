"""heliosd: tells people and programs, the moment it happens, what a Raft cluster is doing."""

__version__ = "0.1.0"
