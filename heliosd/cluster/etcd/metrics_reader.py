"""The `/metrics` of one member, this node's or the leader's, read every ten seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from heliosd.cluster.etcd.client.errors import EtcdError
from heliosd.cluster.etcd.client.responses import EtcdMember

from .context import EtcdContext
from .member_metrics import Measured, measured

READ_SECONDS = 10.0


async def read_metrics(
    context: EtcdContext, url_of: Callable[[EtcdMember], str], read: Callable[[str, Measured], None]
) -> None:
    """Call `read` with a member's id and what it has measured, until cancelled. `url_of`: where it answers; "" if
    nowhere."""
    while True:
        member = context.view.own or next(
            (each for each in context.view.members if each.id == context.view.leader), None
        )
        url = url_of(member) if member is not None else ""
        if member is not None and url:
            # Only shown, and some clusters serve it elsewhere.
            with suppress(EtcdError):
                read(member.id, measured(await context.client.metrics_text(url)))
        await trio.sleep(READ_SECONDS if url else 1.0)
