"""The Origin rule against the tricks that pages play."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.web.origin import host_is_sound, origin_allowed, origin_listed

DASHBOARD = ("https://dash.example.com",)


def allowed(origin: str | None, host: str, listed: tuple[str, ...] = (), machine: str = "box") -> bool:
    return origin_allowed(origin, host, listed, machine)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "127.0.0.1:8080"),
        (None, "anything at all"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("https://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://localhost:8080", "localhost:8080"),
        ("http://LOCALHOST:8080", "localhost:8080"),
        ("http://box:8080", "BOX:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://10.1.2.3", "10.1.2.3"),
        ("http://10.1.2.3", "10.1.2.3:80"),
        ("https://10.1.2.3", "10.1.2.3:443"),
    ],
)
def test_the_daemons_own_pages_and_programs_may_speak(origin: str | None, host: str) -> None:
    assert allowed(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        " ",
        "https://evil",
        "https://evil.example",
        "http://127.0.0.1:8080.evil.example",
        "http://127.0.0.1:8080@evil.example",
        "http://evil.example#127.0.0.1:8080",
        "http://evil.example/127.0.0.1:8080",
        "http://127.0.0.1:8080/",
        "http://127.0.0.1:8080 ",
        " http://127.0.0.1:8080",
        "http://127.0.0.1:8080\n",
        "http://127.0.0.1:80800",
        "http://127.0.0.1:8081",
        "http://127.0.0.1",
        "https://127.0.0.1",
        "http://127.0.0.1:",
        "http://127.0.0.1:0x1f90",
        "http://127.0.0.1.:8080",
        "http://127.0.0.11:8080",
        "http://2130706433:8080",
        "http://localhost:8080",
        "http://１27.0.0.1:8080",
        "ftp://127.0.0.1:8080",
        "ws://127.0.0.1:8080",
        "file://127.0.0.1:8080",
        "127.0.0.1:8080",
        "//127.0.0.1:8080",
        "http://127.0.0.1:8080, http://127.0.0.1:8080",
        "http://127.0.0.1:8080, https://evil.example",
        "http://127.0.0.1:8080 https://evil.example",
    ],
)
def test_a_foreign_or_malformed_origin_is_refused(origin: str) -> None:
    assert not allowed(origin, "127.0.0.1:8080")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "evil.example"),
        ("http://evil.example:8080", "evil.example:8080"),
        ("http://localhost.evil.example:8080", "localhost.evil.example:8080"),
        ("http://box.evil.example", "box.evil.example"),
        ("http://evilbox", "evilbox"),
        ("http://localhost.", "localhost."),
        ("http://2130706433", "2130706433"),
        ("http://0x7f.1", "0x7f.1"),
        ("http://127.0.0.1", "127.0.0.1, evil.example"),
        ("http://127.0.0.1", ""),
        ("http://[fe80::1%25eth0]", "[fe80::1%25eth0]"),
    ],
)
def test_a_host_that_others_could_own_does_not_vouch_for_an_equal_origin(origin: str, host: str) -> None:
    assert not allowed(origin, host)


def test_a_listed_origin_may_speak_from_anywhere() -> None:
    assert allowed("https://dash.example.com", "127.0.0.1:8080", DASHBOARD)
    assert allowed("https://dash.example.com:443", "10.0.0.1", DASHBOARD)
    assert allowed("null", "127.0.0.1:8080", ("null",))


@pytest.mark.parametrize(
    "origin",
    [
        "http://dash.example.com",
        "https://dash.example.com:8443",
        "https://dash.example.com.evil.example",
        "https://evil-dash.example.com",
        "https://evil.dash.example.com",
        "https://dash.example.co",
        "https://dash-example.com",
        "null",
    ],
)
def test_a_listed_origin_is_matched_as_a_whole(origin: str) -> None:
    assert not allowed(origin, "127.0.0.1:8080", DASHBOARD)


def test_the_host_of_a_listed_origin_is_one_of_our_names() -> None:
    assert allowed("http://dash.example.com:8080", "dash.example.com:8080", DASHBOARD)
    assert not allowed("http://dash.example.com:8080", "127.0.0.1:8080", DASHBOARD)


def test_listing_every_page_takes_more_than_a_star() -> None:
    assert not origin_listed("https://evil.example", ("*",))


@given(st.text(), st.text())
def test_no_text_breaks_the_rule_and_only_http_origins_pass(origin: str, host: str) -> None:
    if allowed(origin, host):
        assert origin.lower().startswith(("http://", "https://"))


@given(st.text(alphabet="abc.-_:[]0189%\"'; \r\n"))
def test_a_sound_host_cannot_break_out_of_a_header(host: str) -> None:
    if host_is_sound(host):
        assert not set(host) & set(" ;,'\"\r\n%")
