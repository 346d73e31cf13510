"""Durable files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from heliosd import atomic_file


def test_a_written_file_has_the_content_the_mode_and_no_draft_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    atomic_file.write(path, b"first")
    atomic_file.write(path, b"second", mode=0o640)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_without_replace_an_existing_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "key"
    atomic_file.write(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        atomic_file.write(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_content_stays_if_the_new_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    atomic_file.write(path, b"first")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        atomic_file.write(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_the_draft_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".key.7").symlink_to(victim)
    atomic_file.write(tmp_path / "key", b"secret")
    assert (victim.read_bytes(), (tmp_path / "key").read_bytes()) == (b"kept", b"secret")


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "key"
    atomic_file.write(path, b"x")
    atomic_file.remove(path)
    atomic_file.remove(path)
    assert list(tmp_path.iterdir()) == []
