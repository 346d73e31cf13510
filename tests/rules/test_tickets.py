"""Tickets: each works once, for a while, for one token, and there are never many."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.auth.passwords import DECOY
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.auth.tickets import MAX_OF_ONE_TOKEN, MAX_TICKETS, TICKET_SECONDS, Tickets
from heliosd.clock import Instant
from heliosd.config.model import AuthConfig, Config, Settings, UserConfig

NOW = Instant(1_700_000_000.0, 50.0)


@pytest.fixture(scope="module")
def eva() -> Identity:
    user = UserConfig(name="eva", password_hash=DECOY, roles=("viewer",))
    settings = Settings(Config(auth=AuthConfig(users=(user,))))
    return Access(settings, KeyRing(SigningKey(bytes(range(32)))), {}).issue("eva", NOW.wall).identity


def test_a_ticket_stands_for_its_token_once(eva: Identity) -> None:
    tickets = Tickets()
    ticket = tickets.issue(eva, NOW)
    assert ticket.expires_at == NOW.wall + TICKET_SECONDS
    assert tickets.redeem(ticket.text, NOW.mono + 29.9) == eva
    assert tickets.redeem(ticket.text, NOW.mono + 29.9) is None
    assert len(tickets) == 0


def test_after_30_seconds_by_the_monotonic_clock_it_is_worthless(eva: Identity) -> None:
    tickets = Tickets()
    ticket = tickets.issue(eva, NOW)
    assert tickets.redeem(ticket.text, NOW.mono + TICKET_SECONDS) is None


@pytest.mark.parametrize("text", ["", "nobody's", "\udcff", "x" * 100_000])
def test_what_is_no_ticket_authenticates_no_one(eva: Identity, text: str) -> None:
    tickets = Tickets()
    tickets.issue(eva, NOW)
    assert tickets.redeem(text, NOW.mono) is None


def test_a_ticket_says_no_later_end_than_its_tokens(eva: Identity) -> None:
    ending = replace(eva, expires_at=NOW.wall + 7)
    assert Tickets().issue(ending, NOW).expires_at == NOW.wall + 7


def test_neither_the_ticket_nor_what_is_kept_of_it_shows_its_text(eva: Identity) -> None:
    tickets = Tickets()
    ticket = tickets.issue(eva, NOW)
    assert ticket.text not in repr(ticket)
    assert ticket.text not in repr(vars(tickets))


def test_one_token_has_so_many_and_the_oldest_goes(eva: Identity) -> None:
    tickets = Tickets()
    others = tickets.issue(replace(eva, jti="other"), NOW)
    mine = [tickets.issue(eva, NOW) for _ in range(MAX_OF_ONE_TOKEN + 1)]
    assert len(tickets) == MAX_OF_ONE_TOKEN + 1
    assert tickets.redeem(mine[0].text, NOW.mono) is None
    assert tickets.redeem(mine[1].text, NOW.mono) == eva
    assert tickets.redeem(others.text, NOW.mono) is not None


def test_in_all_there_are_so_many_and_the_oldest_goes(eva: Identity) -> None:
    tickets = Tickets()
    issued = [tickets.issue(replace(eva, jti=str(number)), NOW) for number in range(MAX_TICKETS + 1)]
    assert len(tickets) == MAX_TICKETS
    assert tickets.redeem(issued[0].text, NOW.mono) is None
    assert tickets.redeem(issued[1].text, NOW.mono) is not None


def test_what_was_not_used_is_forgotten(eva: Identity) -> None:
    tickets = Tickets()
    for _ in range(MAX_OF_ONE_TOKEN):
        tickets.issue(eva, NOW)
    later = Instant(NOW.wall, NOW.mono + TICKET_SECONDS)
    issued = [tickets.issue(eva, later) for _ in range(MAX_OF_ONE_TOKEN)]
    assert len(tickets) == MAX_OF_ONE_TOKEN
    assert all(tickets.redeem(ticket.text, later.mono) == eva for ticket in issued)
