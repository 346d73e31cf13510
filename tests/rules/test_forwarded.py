"""Headers of trusted proxies: which are believed, how far, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.web.forwarded import Forwarded, TrustedProxies

PROXIES = TrustedProxies(["127.0.0.1/32", "10.0.0.0/8", "fd00::/8", "unix"])


def read(**headers: str) -> Forwarded:
    return PROXIES.read({name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("127.0.0.1", True), ("127.0.0.2", False), ("10.9.9.9", True), ("fd12::1", True), ("::1", False)],
)
def test_a_proxy_is_trusted_by_its_network(host: str, trusted: bool) -> None:
    assert PROXIES.trusts(host) is trusted
    assert not TrustedProxies([]).trusts(host)


def test_a_unix_socket_is_trusted_if_it_is_listed() -> None:
    assert PROXIES.trusts("unix")
    assert not TrustedProxies(["127.0.0.0/8"]).trusts("unix")


def test_without_headers_nothing_is_known() -> None:
    assert read() == Forwarded(None, None, None)


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:4711", ("192.0.2.1", 4711)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("[2001:DB8::1]", ("2001:db8::1", 0)),
        ("::ffff:192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1, 10.0.0.1", ("192.0.2.1", 0)),
        ("192.0.2.1,10.0.0.1,\t127.0.0.1", ("192.0.2.1", 0)),
        ("203.0.113.9, 192.0.2.1, 10.0.0.1", ("192.0.2.1", 0)),
        ("10.0.0.2, 10.0.0.1", ("10.0.0.2", 0)),
        ("forged nonsense, 192.0.2.1", ("192.0.2.1", 0)),
        ("203.0.113.9, unknown, 10.0.0.1", ("10.0.0.1", 0)),
        ("unknown", None),
        ("_hidden", None),
    ],
)
def test_the_client_is_the_last_address_that_is_not_trusted(
    chain: str, client: tuple[str, int] | None
) -> None:
    assert read(x_forwarded_for=chain).client == client


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for=192.0.2.1", Forwarded(("192.0.2.1", 0), None, None)),
        ('For="[2001:db8::1]:4711"', Forwarded(("2001:db8::1", 4711), None, None)),
        (
            "for=192.0.2.1;proto=https;host=ops.example;by=10.0.0.1",
            Forwarded(("192.0.2.1", 0), "https", "ops.example"),
        ),
        ('for=192.0.2.1, for="10.0.0.7:80" ; proto=http', Forwarded(("192.0.2.1", 0), "http", None)),
        ("for=203.0.113.9;host=evil, for=192.0.2.1", Forwarded(("192.0.2.1", 0), None, None)),
        ("for=unknown", Forwarded(None, None, None)),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(text: str, expected: Forwarded) -> None:
    assert read(forwarded=text) == expected


def test_scheme_and_host_are_those_of_the_nearest_proxy() -> None:
    found = read(x_forwarded_proto="http, wss", x_forwarded_host="evil.example, Ops.Example:8443")
    assert found == Forwarded(None, "https", "Ops.Example:8443")


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": ""},
        {"x_forwarded_for": "192.0.2.1,"},
        {"x_forwarded_for": "192.0.2.256"},
        {"x_forwarded_for": "localhost"},
        {"x_forwarded_for": "evil, 10.0.0.1"},
        {"x_forwarded_for": "[192.0.2.1"},
        {"x_forwarded_for": "192.0.2.1:port"},
        {"x_forwarded_proto": "gopher"},
        {"x_forwarded_proto": ""},
        {"x_forwarded_host": "a/b"},
        {"x_forwarded_host": ""},
        {"forwarded": "for"},
        {"forwarded": "for=192.0.2.1;for=192.0.2.2"},
        {"forwarded": 'for="192.0.2.1'},
        {"forwarded": "for = 192.0.2.1"},
        {"forwarded": 'for="192.0.2.1" x'},
        {"forwarded": "for=192.0.2.1", "x_forwarded_for": "192.0.2.2"},
        {"forwarded": "proto=https", "x_forwarded_for": "192.0.2.2"},
    ],
)
def test_what_is_malformed_or_contradictory_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"Malformed|differ"):
        read(**headers)


def test_both_kinds_of_header_may_say_the_same() -> None:
    assert read(forwarded="for=192.0.2.1", x_forwarded_for="192.0.2.1").client == ("192.0.2.1", 0)


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_raises_anything_but_a_refusal(one: str, other: str) -> None:
    for headers in ({"forwarded": one}, {"x_forwarded_for": one, "x_forwarded_host": other}):
        with suppress(ValueError):
            read(**headers)
