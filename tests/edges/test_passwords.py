"""Passwords and their hashes."""

from __future__ import annotations

import argon2
import pytest
from argon2.low_level import Type

from heliosd.auth.passwords import DECOY, MAX_PASSWORD_BYTES, hash_password, verify
from heliosd.config.password_hashes import is_argon2id


@pytest.mark.parametrize(
    "password", ["x", "correct horse", " leading", "žluťoučký 🐎", "p" * MAX_PASSWORD_BYTES]
)
def test_a_password_matches_its_own_hash_only(password: str) -> None:
    made = hash_password(password)
    assert is_argon2id(made)
    assert verify(made, password)
    assert not verify(made, password[:-1] + "?")
    assert not verify(made, password + " ")


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("x") != hash_password("x")


def test_an_empty_password_is_no_password() -> None:
    with pytest.raises(ValueError, match="empty"):
        hash_password("")
    assert not verify(argon2.PasswordHasher().hash(""), "")


@pytest.mark.parametrize(
    "password", ["p" * (MAX_PASSWORD_BYTES + 1), "é" * (MAX_PASSWORD_BYTES // 2 + 1), "p" * 1_000_000]
)
def test_a_password_that_is_too_long_is_refused_before_it_is_hashed(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="longer than 1024 bytes"):
        hash_password(password)
    monkeypatch.delattr(argon2.PasswordHasher, "verify")
    assert not verify(DECOY, password)


def test_a_lone_surrogate_matches_nothing() -> None:
    assert not verify(hash_password("x"), "\ud800")


@pytest.mark.parametrize(
    "text", ["", "x", "$argon2id$", DECOY[:-3] + "\n", DECOY + "é", DECOY.replace("m=", "m=-")]
)
def test_a_broken_hash_matches_nothing(text: str) -> None:
    assert not is_argon2id(text)
    assert not verify(text, "x")


@pytest.mark.parametrize("kind", [Type.I, Type.D])
def test_other_kinds_of_argon2_are_not_taken(kind: Type) -> None:
    assert not is_argon2id(argon2.PasswordHasher(type=kind, memory_cost=64, time_cost=1).hash("x"))


def test_the_decoy_costs_what_a_hash_costs() -> None:
    assert is_argon2id(DECOY)
    assert argon2.extract_parameters(DECOY) == argon2.extract_parameters(hash_password("x"))
