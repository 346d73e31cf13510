"""Permits to stop a member: who asks gets one only while the cluster keeps its quorum without that member."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from heliosd.cluster.permits import LONGEST_SECONDS, PERMIT_SECONDS, SHORTEST_SECONDS
from heliosd.config.addresses import member_id
from heliosd.protocol.views.permits import PermitView
from heliosd.web.rest.arguments import checked, one_of
from heliosd.web.rest.route import Answer, Call, Nothing

from .peers import ById

Seconds = Annotated[float, Meta(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS)]


class PermitList(Struct, frozen=True):
    """The permits that are out: none or one."""

    permits: tuple[PermitView, ...]


class WantedPermit(Struct, frozen=True, forbid_unknown_fields=True):
    member: str
    seconds: Seconds = PERMIT_SECONDS


class Renewal(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    seconds: Seconds = PERMIT_SECONDS


class PermitAnswer(Struct, frozen=True):
    message: str
    permit: PermitView


async def list_permits(call: Call[Nothing, Nothing]) -> Answer:
    permit = await call.services.backend.permits.current()
    return Answer(body=PermitList(() if permit is None else (permit.view(),)))


async def grant_permit(call: Call[Nothing, WantedPermit]) -> Answer:
    member = checked(member_id, call.body.member, "member")
    user = "" if call.identity is None else call.identity.user_id
    permit = await call.services.backend.permits.grant(member, user, call.body.seconds)
    return Answer(status=201, body=PermitAnswer("Permit granted", permit.view()))


async def renew_permit(call: Call[Nothing, Renewal]) -> Answer:
    permit = await call.services.backend.permits.renew(call.body.id, call.body.seconds)
    return Answer(body=PermitAnswer("Permit renewed", permit.view()))


async def end_permit(call: Call[ById, ById]) -> Answer:
    permit = await call.services.backend.permits.end(one_of(call.query.id, call.body.id, "id"))
    return Answer(body=PermitAnswer("Permit ended", permit.view()))
