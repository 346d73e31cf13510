"""Arguments that several views read in the same way."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET, UnsetType

from heliosd.errors import Invalid


def checked(rule: Callable[[str], str], text: str, field: str) -> str:
    """What `rule` makes of `text`; its ValueError becomes `Invalid`."""
    try:
        return rule(text)
    except ValueError as error:
        raise Invalid(f"{field} {error}", field=field) from None


def one_of(in_query: str | UnsetType, in_body: str | UnsetType, field: str) -> str:
    """What a DELETE names in its query string or its body. Raises `Invalid` without one, or if the two differ."""
    if in_query is not UNSET and in_body is not UNSET and in_query != in_body:
        raise Invalid("The query string and the body differ", field=field)
    name = in_body if in_query is UNSET else in_query
    if name is UNSET:
        raise Invalid("Missing field", field=field)
    return name
