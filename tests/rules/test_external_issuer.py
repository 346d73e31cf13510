"""Tokens of an outside issuer: what holds, and every attack of RFC 8725 that must not."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given
from hypothesis import strategies as st

from heliosd.auth import external_issuer, tokens
from heliosd.auth.external_issuer import FetchedKeys
from heliosd.auth.issuer_keys import IssuerKeys, kid_of
from heliosd.auth.tokens import Claims
from heliosd.errors import Unauthenticated
from tests.support.issuer_tokens import CLAIMS, ISSUER, NOW, b64, document, jwk, key, signed

KINDS = ["RS256", "ES256", "EdDSA"]


def known(*published: dict[str, Any]) -> IssuerKeys:
    """The keys as they are read from the issuer's document."""
    read = jwt.PyJWKSet.from_json(document(*published).decode()).keys
    return FetchedKeys.of("http://127.0.0.1:1/keys", read)


KEYS = known(*(jwk(key(kind), kind) for kind in KINDS))


def verify(token: str, keys: IssuerKeys = KEYS, *, now: float = NOW, audience: str = "") -> Claims:
    return keys.verify(token, issuer=ISSUER, now=now, audience=audience, roles_claim="roles")


def assert_refused(token: str, keys: IssuerKeys = KEYS, *, now: float = NOW, audience: str = "") -> None:
    with pytest.raises(Unauthenticated, match=r"^Invalid token$"):
        verify(token, keys, now=now, audience=audience)


def good(**changes: Any) -> str:
    return signed(key("EdDSA"), "EdDSA", alg="EdDSA", **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_signed_by_a_published_key_says_who_it_is(kind: str) -> None:
    claims = verify(signed(key(kind), kind, alg=kind))
    assert (claims.subject, claims.jti, claims.roles) == ("olga", "o1", ("viewer",))
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 900)
    assert kid_of(signed(key(kind), kind, alg=kind)) == kind


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_access_tokens_may_have_their_own_type(typ: str) -> None:
    assert verify(good(header={"typ": typ})).subject == "olga"
    assert_refused(good(header={"typ": "logout+jwt"}))
    assert_refused(good(header={"typ": 1}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "alg",
    [
        *["none", "None", "nOnE", "", "HS256", "HS512", "RS384", "RS512", "PS256"],
        *["ES384", "ES512", "ES256K", "EdDSA", "RS256", "ES256", "eddsa", "rs256"],
    ],
)
def test_a_key_has_one_algorithm_whatever_the_token_says(kind: str, alg: str) -> None:
    if alg == kind:
        return
    token = signed(key(kind), kind, alg=alg)
    assert_refused(token)
    unsigned = token.rpartition(".")[0]
    assert_refused(unsigned + ".")
    assert_refused(unsigned + ".AA")


@pytest.mark.parametrize("form", ["pem", "der", "ssh", "jwk", "n"])
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_secret_to_sign_with(form: str, alg: str) -> None:
    public = key("RS256").public_key()
    published = jwk(key("RS256"), "RS256")
    encodings, subject = serialization.Encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    secret = {
        "pem": public.public_bytes(encodings.PEM, subject),
        "der": public.public_bytes(encodings.DER, subject),
        "ssh": public.public_bytes(encodings.OpenSSH, serialization.PublicFormat.OpenSSH),
        "jwk": json.dumps(published).encode(),
        "n": published["n"].encode(),
    }[form]
    for kid in ("RS256", None):
        head = json.dumps({"alg": alg, "typ": "JWT", **({"kid": kid} if kid else {})}).encode()
        text = f"{b64(head)}.{b64(json.dumps(CLAIMS).encode())}"
        digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
        assert_refused(f"{text}.{b64(hmac.digest(secret, text.encode(), digest))}")


def test_keys_of_other_kinds_and_weak_keys_are_passed_over() -> None:
    pair = key("RS256")
    assert isinstance(pair, RSAPrivateKey)
    private = jwt.algorithms.RSAAlgorithm.to_jwk(pair, as_dict=True)
    keys = known(
        {"kty": "oct", "k": b64(bytes(range(32))), "kid": "oct", "alg": "HS256"},
        jwk(key("weak"), "weak"),
        jwk(key("ES384"), "ES384"),
        jwk(key("RS256"), "RS512", alg="RS512"),
        jwk(key("RS256"), "PS256", alg="PS256"),
        {**private, "kid": "private"},
        jwk(key("RS256"), ""),
        jwk(key("RS256"), "k" * 300),
        {"kty": "RSA", "n": "!", "e": "!", "kid": "broken"},
        jwk(key("ES256"), "good"),
    )
    assert list(keys.by_kid) == ["good"]
    assert_refused(signed(key("weak"), "weak"), keys)
    assert_refused(signed(key("RS256"), "private"), keys)


def test_a_secret_in_the_issuers_document_signs_nothing() -> None:
    secret = bytes(range(32))
    keys = known({"kty": "oct", "k": b64(secret), "kid": "oct"}, jwk(key("ES256"), "good"))
    text = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'oct'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    assert_refused(f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}", keys)


def test_of_a_document_with_very_many_keys_only_the_first_count() -> None:
    keys = known(*(jwk(key("EdDSA"), f"k{number}") for number in range(external_issuer.MAX_KEYS + 5)))
    assert len(keys.by_kid) == external_issuer.MAX_KEYS


@pytest.mark.parametrize("kid", [None, "", "../../../dev/null", "' OR 1=1 --", "RS256", "eddsa"])
def test_a_kid_picks_among_the_published_keys_and_nothing_else(kid: str | None) -> None:
    assert_refused(signed(key("EdDSA"), kid, alg="EdDSA"))


@pytest.mark.parametrize("kid", [1, True, None, ["EdDSA"], {"kid": 1}, "k" * 300])
def test_a_kid_that_is_no_short_text_is_none(kid: object) -> None:
    token = signed(key("EdDSA"), None, alg="EdDSA", header={"kid": kid})
    assert kid_of(token) == ""
    assert_refused(token)


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"b64": False, "crit": ["b64"]},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"jwk": jwk(key("EdDSA", 1), "EdDSA")},
        {"x5c": ["MII"]},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
    ],
)
def test_a_header_that_brings_a_key_or_asks_for_more_is_refused(extra: dict[str, object]) -> None:
    assert_refused(good(header=extra))
    # It does not even name a key to fetch.
    with pytest.raises(Unauthenticated):
        kid_of(good(header=extra))


def test_another_key_under_a_published_kid_signs_nothing() -> None:
    for kind in KINDS:
        assert_refused(signed(key(kind, 1), kind, alg=kind))


def test_a_token_changed_in_any_place_is_refused() -> None:
    token = good()
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        assert_refused(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("change", ["{}=", "{}==", " {}", "{}\n", "{}.", ".{}", "{}.AA", "é{}", "{}\u0000"])
def test_a_token_has_one_spelling(change: str) -> None:
    assert_refused(change.format(good()))


@pytest.mark.parametrize("name", ["iss", "sub", "exp"])
def test_issuer_subject_and_end_are_needed(name: str) -> None:
    assert_refused(good(**{name: None}))


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize(
    "value",
    ['"1700000900"', "true", "1e308", "1e999", "NaN", "Infinity", "-1", "[1]", "{}", "null", "9" * 4000],
)
def test_a_time_is_a_number_that_a_calendar_has(name: str, value: str) -> None:
    claims = {claim: held for claim, held in CLAIMS.items() if claim != name}
    assert_refused(good(payload=(json.dumps(claims)[:-1] + f',"{name}":{value}}}').encode()))


def test_a_token_holds_from_its_nbf_to_its_exp() -> None:
    assert_refused(good(nbf=NOW + 1))
    assert verify(good(nbf=NOW), now=NOW + 899.9).subject == "olga"
    with pytest.raises(tokens.Expired) as caught:
        verify(good(), now=NOW + 900)
    assert caught.value.jti == "o1"


@pytest.mark.parametrize(
    "value", ["heliosd", ISSUER.upper(), ISSUER + "x", "", [ISSUER], {ISSUER: 1}, 1, True]
)
def test_another_issuer_is_refused(value: object) -> None:
    assert_refused(good(iss=value))


@pytest.mark.parametrize("value", ["other", ["other"], [], [["dash"]], "", {"dash": 1}, True, None])
def test_where_an_audience_is_configured_only_that_one_holds(value: object) -> None:
    assert_refused(good(aud=value), audience="dash")


@pytest.mark.parametrize("value", ["dash", ["dash"], ["account", "dash"]])
def test_the_audience_may_stand_alone_or_in_a_list(value: object) -> None:
    assert verify(good(aud=value), audience="dash").subject == "olga"


@pytest.mark.parametrize("value", ["dash", ["dash"], ["", "dash"], 1])
def test_a_token_for_someone_else_is_refused(value: object) -> None:
    assert_refused(good(aud=value))


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize("value", ["", 1, True, ["olga"], {"olga": 1}, "x" * 257])
def test_a_name_in_a_token_is_text(name: str, value: object) -> None:
    assert_refused(good(**{name: value}))


@pytest.mark.parametrize(
    "roles", ["admin", 1, True, {"admin": True}, [1, "admin"], [["admin"]], [None], None]
)
def test_odd_roles_give_none(roles: object) -> None:
    assert verify(good(roles=roles)).roles == ()


def test_the_claim_of_roles_may_have_another_name() -> None:
    token = good(groups=["admin", "admin", "x"])
    found = KEYS.verify(token, issuer=ISSUER, now=NOW, audience="", roles_claim="groups")
    assert found.roles == ("admin", "x")


@pytest.mark.parametrize(
    ("path", "claims", "roles"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["viewer", "x"]}}, ("viewer", "x")),
        ("a.b.c", {"a": {"b": {"c": ["viewer"]}}}, ("viewer",)),
        ("https://a.example/roles", {"https://a.example/roles": ["viewer"]}, ("viewer",)),
        ("realm_access.roles", {"realm_access.roles": ["x"], "realm_access": {"roles": ["viewer"]}}, ("x",)),
        ("realm_access.roles", {"realm_access": ["viewer"]}, ()),
        ("realm_access.roles", {"realm_access": {"roles": "viewer"}}, ()),
        ("realm_access.roles", {"roles": ["viewer"]}, ()),
        ("realm_access..roles", {"realm_access": {"roles": ["viewer"]}}, ()),
    ],
)
def test_the_claim_of_roles_may_be_nested(
    path: str, claims: dict[str, object], roles: tuple[str, ...]
) -> None:
    token = good(**{"roles": None, **claims})
    found = KEYS.verify(token, issuer=ISSUER, now=NOW, audience="", roles_claim=path)
    assert found.roles == roles


def test_claims_that_stand_twice_and_bodies_that_are_no_object_are_refused() -> None:
    assert_refused(good(payload=(json.dumps(CLAIMS)[:-1] + ',"sub":"admin"}').encode()))
    for body in (b"[]", b"1", b"null", b"{", b"\xff", b"[" * 5000, b'{"a":' * 1000):
        assert_refused(good(payload=body))


def test_a_large_token_is_refused_unread() -> None:
    assert_refused(good(x="y" * 8000))
    assert_refused("a" * 2_000_000)


def test_without_a_jti_what_was_signed_stands_for_it() -> None:
    one, other = good(jti=None), good(jti=None, iat=NOW - 1)
    assert verify(one).jti == verify(one).jti
    assert verify(one).jti != verify(other).jti
    # The same claims signed again with ECDSA have another signature, and are the same token.
    again = [signed(key("ES256"), "ES256", alg="ES256", jti=None) for _ in range(2)]
    assert again[0] != again[1]
    assert verify(again[0]).jti == verify(again[1]).jti


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF)))
def test_any_text_is_refused_and_nothing_else_rises(text: str) -> None:
    assert_refused(text)
    tokens.claimed_issuer(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_claim_is_taken_or_refused_and_nothing_else_rises(value: object) -> None:
    for name in ("iss", "sub", "iat", "exp", "jti", "nbf", "aud", "roles"):
        payload = json.dumps(CLAIMS | {name: value}).encode()
        try:
            claims = verify(good(payload=payload))
        except Unauthenticated:
            continue
        assert claims.expires_at > NOW
        assert all(isinstance(role, str) for role in claims.roles)
