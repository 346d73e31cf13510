"""Programs under the rules of the service's unit where no systemd runs: bubblewrap with its system calls, its file
systems and its user.

What it stands in for: SystemCallFilter, ProtectSystem, ProtectHome, PrivateTmp, PrivateDevices, StateDirectory,
RuntimeDirectory, User, PrivateUsers, CapabilityBoundingSet, NoNewPrivileges.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

_NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM = 1


def missing_programs() -> list[str]:
    """What this machine lacks for it."""
    needed = [name for name in ("bwrap", "setpriv", "systemd-analyze") if shutil.which(name) is None]
    return needed if _NUMBERS.exists() else [*needed, "libc6-dev"]


def seccomp_program(filters: Sequence[str]) -> bytes:
    """A seccomp filter from the `SystemCallFilter=` lines of a unit: what they do not allow fails with EPERM."""
    assert platform.machine() == "x86_64"
    numbers = {
        name: int(number)
        for name, number in re.findall(r"#define __NR_(\w+) (\d+)", _NUMBERS.read_text(encoding="ascii"))
    }
    allowed: set[str] = set()
    for line in filters:
        names = set(_expanded(line.removeprefix("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    # The architecture, then the number (struct seccomp_data).
    code = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, _ARCHITECTURE), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    code += [(_LOAD, 0, 0, 0)]
    for number in sorted(numbers[name] for name in allowed & numbers.keys()):
        code += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code += [(_RETURN, 0, 0, _ERRNO | _EPERM)]
    return b"".join(struct.pack("<HBBI", *each) for each in code)


def _expanded(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        if not name.startswith("@"):
            yield name
            continue
        text = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
        ).stdout
        yield from _expanded(
            line.strip()
            for line in text.splitlines()[1:]
            if line.strip() and not line.strip().startswith("#")
        )


def under_the_rules(
    root: Path, command: Sequence[str], *, seccomp_fd: int, user: int, group: int
) -> list[str]:
    """`command` in the system `root`, as this user without any right, on a read-only file system apart from the
    state and the runtime directory."""
    # The user may not reach the folder that `root` is in.
    reachable = f'mount --bind {shlex.quote(str(root))} /mnt && exec "$@"'
    return [
        *("unshare", "--mount", "sh", "-c", reachable, "sh"),
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--bounding-set=-all"),
        *("bwrap", "--unshare-user", "--uid", str(user), "--gid", str(group), "--unshare-ipc"),
        *("--ro-bind", "/mnt", "/", "--proc", "/proc", "--dev", "/dev"),
        *("--bind", "/mnt/var/lib/heliosd", "/var/lib/heliosd"),
        *("--tmpfs", "/home", "--tmpfs", "/root", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"),
        *("--tmpfs", "/run", "--dir", "/run/heliosd"),
        *("--cap-drop", "ALL", "--seccomp", str(seccomp_fd), "--die-with-parent", *command),
    ]
