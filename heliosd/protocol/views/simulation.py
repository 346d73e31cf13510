"""The faults of a simulated cluster, and its members as they are: `GET` and `PUT /api/cluster/simulation`."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType

from heliosd.raft.roles import Role


class SimulatedNode(Struct, frozen=True):
    """One member. A crashed one keeps its last term and indices."""

    id: str
    alive: bool
    """False only while it is crashed."""
    state: Role
    """Of a paused one: the state in which it was paused."""
    term: int
    leader: str
    """The leader that this member knows; "" = none."""
    commit_index: int
    last_index: int


class SimulationReport(Struct, frozen=True):
    """Members that a mapping does not name have no such fault."""

    partitions: tuple[tuple[str, ...], ...]
    """Only members of the same group reach each other; those in none form one more."""
    crashed: tuple[str, ...]
    loss: float
    """Share of messages lost."""
    latency_ms: float
    """Mean one-way delay."""
    paused: tuple[str, ...]
    """Their processes stand still; what is sent to them waits."""
    disk_latency_ms: Mapping[str, float]
    """What a write to the disk takes."""
    clock_rate: Mapping[str, float]
    """Speed of a member's clock; 1 is right."""
    clock_offset_ms: Mapping[str, float]
    """How far a member's clock has leapt ahead."""
    nodes: tuple[SimulatedNode, ...]


class FaultChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The faults to replace; what is left out stays as it is."""

    partitions: tuple[tuple[str, ...], ...] | UnsetType = UNSET
    crashed: tuple[str, ...] | UnsetType = UNSET
    loss: float | UnsetType = UNSET
    latency_ms: float | UnsetType = UNSET
    paused: tuple[str, ...] | UnsetType = UNSET
    disk_latency_ms: dict[str, float] | UnsetType = UNSET
    clock_rate: dict[str, float] | UnsetType = UNSET
    clock_offset_ms: dict[str, float] | UnsetType = UNSET
