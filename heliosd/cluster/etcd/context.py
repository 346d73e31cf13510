"""What the tasks of the etcd backend share."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.subscribers import Subscribers

from .faults import Faults
from .keys import KeyLayout
from .log_lease import LogLease
from .mirror import Mirror
from .view import ClusterView


class EtcdContext(Struct, frozen=True, kw_only=True):
    """Built once, by `EtcdBackend`, and handed to every task of it."""

    node_id: str
    max_events: int
    """Events that the cluster's log keeps."""
    now: Callable[[], Instant]
    client: EtcdClient
    identity: ClusterIdentity
    layout: KeyLayout
    lease: LogLease
    """For the events that this node writes."""
    mirror: Mirror
    """The keys under the prefix, as applied on this node."""
    view: ClusterView
    """The members, as seen from this node."""
    faults: Faults
    subscribers: Subscribers
    """To whom events are emitted. A task that emits waits for `room` before its next step."""
