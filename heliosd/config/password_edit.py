"""Changing one user's password hash in a configuration file and nothing else, comments included."""

from __future__ import annotations

import re
import tomllib

from .lines import KeyLines

_VALUE = re.compile(r"""(\bpassword_hash["']?\s*=\s*)("[^"]*"|'[^']*')""")


def with_password_hash(text: str, user: str, password_hash: str) -> str:
    """The file's `text` with that hash for that user. Raises LookupError if it has no such user, ValueError if the
    place cannot be changed by itself."""
    mark, body = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    whole = tomllib.loads(body)
    users = whole.get("auth", {}).get("users", [])
    index = next((index for index, each in enumerate(users) if each.get("name") == user), None)
    if index is None:
        raise LookupError(user)
    number = KeyLines(body).find(f"auth.users[{index}].password_hash")
    lines = body.splitlines(keepends=True)
    if number is None:
        raise ValueError("its line is not found")
    lines[number - 1] = _VALUE.sub(lambda found: f'{found[1]}"{password_hash}"', lines[number - 1], count=1)
    changed = "".join(lines)
    users[index]["password_hash"] = password_hash
    if tomllib.loads(changed) != whole:
        raise ValueError("it stands together with something else on its line")
    return mark + changed
