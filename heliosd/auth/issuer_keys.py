"""The keys of an outside issuer as far as they are known, and which of them a token names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import tokens
from .tokens import Claims

ALGORITHM_OF: Mapping[tuple[str, str | None], str] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
"""By the type of a key (`kty` and `crv`), the one algorithm that it may sign with."""
MAX_KID = 256


@dataclass(frozen=True, slots=True)
class IssuerKeys:
    """The keys that were found under `url`, by `kid`: none here, `external_issuer.FetchedKeys` has some."""

    url: str = ""
    by_kid: Mapping[str, object] = field(default_factory=dict, repr=False)

    def verify(self, token: str, *, issuer: str, now: float, audience: str, roles_claim: str) -> Claims:
        """The claims of `token`, if one of the keys signed it and it holds at `now`. Raises as `tokens.verify`."""
        tokens.refuse()


def kid_of(token: str) -> str:
    """The `kid` that a token names, not verified; "" if there is none or the token cannot hold anyway."""
    header = tokens.read_header(token)
    kid = header.get("kid")
    sound = isinstance(kid, str) and len(kid) <= MAX_KID and header["alg"] in ALGORITHM_OF.values()
    return str(kid) if sound else ""
