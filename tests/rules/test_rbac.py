"""What a role may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.config.model import DEFAULT_ROLES
from heliosd.config.permissions import EVERYTHING, PERMISSIONS, may, permissions_of


@pytest.mark.parametrize("needed", sorted(PERMISSIONS))
def test_admin_may_everything(needed: str) -> None:
    assert may(permissions_of(["admin"], DEFAULT_ROLES), needed)


def test_a_viewer_may_watch_and_read_only() -> None:
    held = permissions_of(["viewer"], DEFAULT_ROLES)
    assert {needed for needed in PERMISSIONS if may(held, needed)} == {"cluster:watch", "cluster:read"}


@given(st.lists(st.text()), st.sampled_from(sorted(PERMISSIONS)))
def test_roles_that_are_not_defined_give_nothing(roles: list[str], needed: str) -> None:
    assert not may(permissions_of(roles, {}), needed)


@given(st.sets(st.sampled_from(sorted(PERMISSIONS - {EVERYTHING}))), st.sampled_from(sorted(PERMISSIONS)))
def test_without_admin_a_right_is_had_only_by_its_own_name(held: set[str], needed: str) -> None:
    assert may(frozenset(held), needed) == (needed in held)
