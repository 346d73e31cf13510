"""What a first start makes: the signing key, and the user admin."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
from pathlib import Path

import pytest

from heliosd.auth import tokens
from heliosd.auth.first_start import ensure_admin, hand_over, kept_admin, load_signing_keys
from heliosd.auth.passwords import DECOY, verify
from heliosd.auth.signing_keys import MAX_KEYS, KeyRing, SigningKey
from heliosd.config.model import AuthConfig, Config, UserConfig
from heliosd.daemon.referenced_files import problems_with_files
from heliosd.errors import KeyUnusable, StoreDamaged, StoreError, Unauthenticated


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def same(one: KeyRing, other: KeyRing) -> bool:
    token, _ = tokens.issue(one, issuer="i", subject="s", roles=(), now=0, ttl=9)
    return tokens.verify(token, other, issuer="i", now=0).subject == "s"


def with_key(path: Path) -> Config:
    return Config(auth=AuthConfig(jwt_secret_file=path))


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def test_the_first_start_makes_a_key_that_later_ones_find(tmp_path: Path) -> None:
    first = load_signing_keys(Config(), tmp_path, make=True)
    assert mode(tmp_path / "jwt_secret") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["jwt_secret"]
    assert same(first, load_signing_keys(Config(), tmp_path, make=True))
    assert same(first, load_signing_keys(Config(), tmp_path, make=False))


def test_a_pipe_in_place_of_a_configured_key_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    (problem,) = problems_with_files(with_key(tmp_path / "key"))
    assert problem.key == "auth.jwt_secret_file"
    assert problem.message.endswith("is not a regular file")


def test_a_configured_key_that_cannot_be_looked_at_is_a_mistake_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (problem,) = problems_with_files(with_key(tmp_path / "loop"))
    assert problem.key == "auth.jwt_secret_file"
    assert "cannot read the signing key" in problem.message


def test_two_first_starts_make_different_keys(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    load_signing_keys(Config(), tmp_path / "a", make=True)
    load_signing_keys(Config(), tmp_path / "b", make=True)
    assert (tmp_path / "a" / "jwt_secret").read_text() != (tmp_path / "b" / "jwt_secret").read_text()


def test_without_make_no_key_is_made_and_the_error_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"jwt_secret does not exist"):
        load_signing_keys(Config(), tmp_path, make=False)
    assert list(tmp_path.iterdir()) == []


def test_the_configured_key_comes_before_the_credential_and_that_before_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_signing_keys(Config(), tmp_path, make=True)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert same(load_signing_keys(Config(), tmp_path, make=False), own)
    (credentials / "jwt_secret").write_bytes(b"credential" * 4)
    assert same(load_signing_keys(Config(), tmp_path, make=False), KeyRing(SigningKey(b"credential" * 4)))
    configured = tmp_path / "configured"
    configured.write_bytes(b"configured" * 4)
    assert same(
        load_signing_keys(with_key(configured), tmp_path, make=True), KeyRing(SigningKey(b"configured" * 4))
    )


def test_a_configured_key_that_is_missing_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="absent"):
        load_signing_keys(with_key(tmp_path / "absent"), tmp_path, make=True)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_cannot_be_looked_for_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unseen = tmp_path / ("x" * 300)
    with pytest.raises(KeyUnusable, match="File name too long"):
        load_signing_keys(Config(), unseen, make=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(unseen))
    with pytest.raises(KeyUnusable, match="File name too long"):
        load_signing_keys(Config(), tmp_path, make=True)
    assert list(tmp_path.iterdir()) == []


def test_a_key_whose_mode_cannot_be_read_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef" * 2)

    def fail(path: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", fail)
        with pytest.raises(KeyUnusable, match=f"{re.escape(str(key))}: Stale file handle"):
            load_signing_keys(with_key(key), tmp_path, make=False)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short\n", b"x" * 31 + b"\n", b"-----BEGIN PUBLIC KEY-----\nMIIB\n"]
)
def test_a_weak_key_stops_the_start_and_names_its_file(content: bytes, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(KeyUnusable, match=re.escape(str(key))):
        load_signing_keys(with_key(key), tmp_path, make=True)


def test_an_editors_newline_is_not_part_of_a_key_but_a_random_byte_is(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef\r\n")
    assert same(
        load_signing_keys(with_key(key), tmp_path, make=False), KeyRing(SigningKey(b"0123456789abcdef" * 2))
    )
    random = bytes(range(200, 231)) + b"\n"
    key.write_bytes(random)
    assert same(load_signing_keys(with_key(key), tmp_path, make=False), KeyRing(SigningKey(random)))


def test_of_several_keys_in_a_file_the_first_signs_and_all_verify(tmp_path: Path) -> None:
    new, old = b"n3w" * 11, b"0ld" * 11
    key = tmp_path / "key"
    key.write_bytes(b"\n  " + new + b"\r\n\n" + old + b"\n")
    both = load_signing_keys(with_key(key), tmp_path, make=False)
    assert same(both, KeyRing(SigningKey(new)))
    assert same(KeyRing(SigningKey(new)), both)
    assert same(KeyRing(SigningKey(old)), both)
    with pytest.raises(Unauthenticated):
        same(both, KeyRing(SigningKey(old)))


@pytest.mark.parametrize("other", [b"short", b"x" * 40, b"-----BEGIN ENCRYPTED PRIVATE KEY-----"])
def test_one_weak_key_among_others_makes_the_file_unusable(other: bytes, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef" * 2 + b"\n" + other + b"\n")
    with pytest.raises(KeyUnusable, match=re.escape(f"{key}, key 2: ")) as caught:
        load_signing_keys(with_key(key), tmp_path, make=False)
    assert other.decode() not in str(caught.value)


def test_a_file_holds_a_few_keys_not_many(tmp_path: Path) -> None:
    key = tmp_path / "key"
    lines = [f"{number:032d}" for number in range(MAX_KEYS + 1)]
    key.write_text("\n".join(lines))
    with pytest.raises(KeyUnusable, match="9 keys; at most 8"):
        load_signing_keys(with_key(key), tmp_path, make=False)


def test_a_credential_of_systemd_is_not_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    credential = tmp_path / "jwt_secret"
    credential.write_bytes(b"0123456789abcdef" * 2)
    credential.chmod(0o440)
    load_signing_keys(with_key(credential), tmp_path, make=False)
    load_signing_keys(Config(), tmp_path, make=False)
    assert not caplog.records


def test_a_key_that_others_may_read_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef" * 2)
    key.chmod(0o600)
    load_signing_keys(with_key(key), tmp_path, make=False)
    assert not caplog.records
    key.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_signing_keys(with_key(key), tmp_path, make=False)
    assert "chmod 600" in caplog.text
    assert "0123456789abcdef" not in caplog.text


def test_with_users_configured_no_user_is_made(tmp_path: Path) -> None:
    eva = UserConfig(name="eva", password_hash=DECOY, roles=("admin",))
    assert ensure_admin(Config(auth=AuthConfig(users=(eva,))), tmp_path) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_the_password_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    user, password = ensure_admin(Config(), tmp_path)
    assert user is not None
    assert password is not None
    assert (user.name, user.roles) == ("admin", ("admin",))
    terminal = io.StringIO()
    assert hand_over(user, password, tmp_path, terminal) is None
    assert terminal.getvalue().count(password) == 1
    (kept,) = tmp_path.iterdir()
    assert mode(kept) == 0o600
    assert password not in kept.read_text()
    assert verify(user.password_hash, password)
    assert ensure_admin(Config(), tmp_path) == (user, None)
    assert kept_admin(tmp_path) == user


def test_without_a_terminal_the_password_is_in_a_file_for_its_owner(tmp_path: Path) -> None:
    user, password = ensure_admin(Config(), tmp_path)
    assert user is not None
    assert password is not None
    written = hand_over(user, password, tmp_path, None)
    assert written == tmp_path / "admin_password"
    assert mode(written) == 0o600
    assert written.read_text() == password + "\n"
    assert ensure_admin(Config(), tmp_path) == (user, None)


def test_a_start_that_was_killed_before_it_published_the_password_does_not_lock_the_admin_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "admin_password").write_text("written by a start that died\n")
    first, second = ensure_admin(Config(), tmp_path), ensure_admin(Config(), tmp_path)
    assert first != second
    user, password = second
    assert user is not None
    assert password is not None
    hand_over(user, password, tmp_path, None)
    assert (tmp_path / "admin_password").read_text() == password + "\n"
    assert mode(tmp_path / "admin_password") == 0o600


def test_a_damaged_hash_is_an_error_and_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "admin_password_hash").write_text("")
    with pytest.raises(StoreDamaged, match="admin_password_hash"):
        ensure_admin(Config(), tmp_path)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(KeyUnusable, match="cannot make the signing key"):
        load_signing_keys(Config(), absent, make=True)
    user, password = ensure_admin(Config(), absent)
    assert user is not None
    assert password is not None
    with pytest.raises(StoreError, match="cannot keep the password"):
        hand_over(user, password, absent, None)
