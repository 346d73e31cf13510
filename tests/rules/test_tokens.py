"""Tokens: what holds, and every attack of RFC 8725 that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from heliosd.auth import tokens
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.errors import KeyUnusable, Unauthenticated

SECRET = bytes(range(32))
KEY = KeyRing(SigningKey(SECRET))
NOW = 1_700_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": "heliosd",
    "sub": "eva",
    "iat": 1_700_000_000,
    "exp": 1_700_000_900,
    "jti": "j1",
    "roles": ["viewer"],
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(payload: str | bytes, header: str = '{"alg":"HS256","typ":"JWT"}', secret: bytes = SECRET) -> str:
    """A token of exactly these texts, signed rightly with `secret`."""
    body = payload.encode() if isinstance(payload, str) else payload
    signed = f"{b64(header.encode())}.{b64(body)}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def signed(**changes: Any) -> str:
    return forged(json.dumps({name: v for name, v in (CLAIMS | changes).items() if v is not None}))


def verify(token: str, *, now: float = NOW, audience: str = "") -> tokens.Claims:
    return tokens.verify(token, KEY, issuer="heliosd", now=now, audience=audience)


def assert_refused(token: str, *, now: float = NOW, audience: str = "") -> None:
    with pytest.raises(Unauthenticated, match=r"^Invalid token$"):
        verify(token, now=now, audience=audience)


def test_an_issued_token_says_who_it_is_until_when() -> None:
    token, claims = tokens.issue(
        KEY, issuer="heliosd", subject="eva", roles=("viewer",), now=NOW + 0.4, ttl=900
    )
    assert verify(token) == claims
    assert (claims.subject, claims.issued_at, claims.expires_at) == ("eva", NOW, NOW + 901)
    body = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})
    assert set(body) == {"iss", "sub", "iat", "exp", "jti", "roles", "pwd", "auth_time"}
    assert body["roles"] == ["viewer"]


def test_no_two_tokens_have_the_same_id() -> None:
    made = [
        tokens.issue(KEY, issuer="heliosd", subject="eva", roles=(), now=NOW, ttl=9)[1].jti
        for _ in range(100)
    ]
    assert len(set(made)) == 100


def test_the_forger_of_these_tests_makes_tokens_that_hold() -> None:
    assert verify(signed()).subject == "eva"
    assert verify(signed(nbf=NOW, exp=NOW + 0.5)).expires_at == NOW + 0.5


def test_a_token_holds_until_its_last_moment_and_then_no_more() -> None:
    assert verify(signed(), now=1_700_000_899.9).jti == "j1"
    with pytest.raises(tokens.Expired) as caught:
        verify(signed(), now=1_700_000_900.0)
    assert caught.value.jti == "j1"


def test_a_clock_set_back_does_not_undo_a_token() -> None:
    assert verify(signed(), now=NOW - 3600).subject == "eva"


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", "HS512", "HS384", "RS256", "hs256", "EdDSA"]
)
def test_a_token_cannot_choose_its_algorithm(alg: str) -> None:
    header = json.dumps({"alg": alg, "typ": "JWT"})
    assert_refused(forged(json.dumps(CLAIMS), header))
    unsigned = f"{b64(header.encode())}.{b64(json.dumps(CLAIMS).encode())}."
    assert_refused(unsigned)
    assert_refused(unsigned + "AA")


@pytest.mark.parametrize(
    "header", ["{}", "[]", "1", '"HS256"', '{"alg":1}', '{"alg":["HS256"]}', '{"alg":null}', "{"]
)
def test_a_header_that_names_no_algorithm_is_refused(header: str) -> None:
    assert_refused(forged(json.dumps(CLAIMS), header))


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False},
        {"b64": False, "crit": ["b64"]},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"jwk": {"kty": "oct", "k": b64(SECRET)}},
        {"x5c": ["MII"]},
        {"typ": "JWE"},
        {"typ": 1},
        {"kid": 1},
    ],
)
def test_a_header_that_asks_for_more_is_refused(extra: dict[str, object]) -> None:
    assert_refused(forged(json.dumps(CLAIMS), json.dumps({"alg": "HS256", "typ": "JWT"} | extra)))


@pytest.mark.parametrize("kid", ["../../../dev/null", "/dev/null", "' OR 1=1 --", "key1"])
def test_a_kid_chooses_no_key(kid: str) -> None:
    header = json.dumps({"alg": "HS256", "kid": kid})
    assert_refused(forged(json.dumps(CLAIMS), header, secret=b""))
    assert_refused(forged(json.dumps(CLAIMS), header, secret=b"\0" * 32))
    assert verify(forged(json.dumps(CLAIMS), header)).subject == "eva"


def test_a_header_or_a_body_with_a_name_twice_is_refused() -> None:
    assert_refused(forged(json.dumps(CLAIMS), '{"alg":"none","alg":"HS256"}'))
    assert_refused(forged(json.dumps(CLAIMS)[:-1] + ',"sub":"admin"}'))
    assert_refused(forged(json.dumps(CLAIMS)[:-1] + ',"exp":1e12}'))


@pytest.mark.parametrize("name", ["iss", "sub", "iat", "exp", "jti"])
def test_every_claim_is_required(name: str) -> None:
    assert_refused(signed(**{name: None}))


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize(
    "value",
    ['"1700000900"', "true", "1e308", "1e999", "NaN", "Infinity", "-1", "[1]", "{}", "null", "9" * 4000],
)
def test_a_time_is_a_number_that_a_calendar_has(name: str, value: str) -> None:
    claims = {key: claim for key, claim in CLAIMS.items() if key != name}
    assert_refused(forged(json.dumps(claims)[:-1] + f',"{name}":{value}}}'))


def test_an_integer_too_long_to_read_is_refused() -> None:
    assert_refused(forged(json.dumps(CLAIMS)[:-1] + f',"x":{"9" * 5000}}}'))


def test_a_token_does_not_hold_before_its_nbf() -> None:
    assert_refused(signed(nbf=NOW + 1))
    assert verify(signed(nbf=NOW + 1), now=NOW + 1).subject == "eva"


@pytest.mark.parametrize("value", ["other", "HELIOSD", "", ["heliosd"], {"heliosd": 1}, 1, True])
def test_another_issuer_is_refused(value: object) -> None:
    assert_refused(signed(iss=value))


@pytest.mark.parametrize("value", ["other", ["dash"], ["dash", "other"], "", {"dash": 1}, True, None])
def test_where_an_audience_is_configured_only_that_one_holds(value: object) -> None:
    assert_refused(signed(aud=value), audience="dash")
    assert verify(signed(aud="dash"), audience="dash").subject == "eva"


@pytest.mark.parametrize("value", ["dash", ["dash"], 1])
def test_a_token_for_someone_else_is_refused(value: object) -> None:
    assert_refused(signed(aud=value))


def test_an_issued_token_names_the_configured_audience() -> None:
    token, _ = tokens.issue(KEY, issuer="heliosd", subject="eva", roles=(), now=NOW, ttl=9, audience="dash")
    assert verify(token, audience="dash").subject == "eva"
    assert_refused(token)


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize("value", ["", 1, True, ["eva"], {"eva": 1}, "x" * 257, "eva\ud800"])
def test_a_name_in_a_token_is_text(name: str, value: object) -> None:
    assert_refused(signed(**{name: value}))


@pytest.mark.parametrize("roles", ["admin", 1, True, {"admin": True}, [1, None], [["admin"]]])
def test_odd_roles_in_our_own_token_mean_nothing(roles: object) -> None:
    # The configuration decides about the rights of our users; the claim is for the client to read.
    assert verify(signed(roles=roles)).roles == ()


@pytest.mark.parametrize(
    "body", ["[]", "1", '"x"', "null", "", "{", "\ufeff{}", b"\xff\xfe", "[" * 5000, '{"a":' * 1000]
)
def test_a_body_that_is_no_object_is_refused(body: str | bytes) -> None:
    assert_refused(forged(body))


def test_deep_nesting_is_refused_wherever_it_stands() -> None:
    assert_refused(forged("[" * 5500))
    assert_refused(forged(json.dumps(CLAIMS), "[" * 5000))
    assert_refused(forged(json.dumps(CLAIMS)[:-1] + ',"x":' + "[" * 5000 + "]" * 100 + "}"))


def test_a_large_token_is_refused_unread() -> None:
    assert_refused("a" * 2_000_000)
    assert_refused(signed(x="y" * 8000))
    assert verify(signed(x="y" * 5000)).subject == "eva"


@pytest.mark.parametrize(
    "change", ["{}=", "{}==", " {}", "{}\n", "{}.", ".{}", "{}.AA", "{}A", "é{}", "{}\u0000"]
)
def test_a_token_has_one_spelling(change: str) -> None:
    assert_refused(change.format(signed()))


@pytest.mark.parametrize("text", ["", ".", "..", "...", "a.b", "a.b.c", "t_0123456789abcdef"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert_refused(text)


def test_a_token_changed_in_any_place_is_refused() -> None:
    token = signed()
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        assert_refused(token[:place] + other + token[place + 1 :])


def test_another_key_signs_nothing() -> None:
    assert_refused(forged(json.dumps(CLAIMS), secret=bytes(32)))
    assert_refused(forged(json.dumps(CLAIMS), secret=b""))


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF)))
def test_any_text_is_refused_and_nothing_else_rises(text: str) -> None:
    assert_refused(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_claim_is_taken_or_refused_and_nothing_else_rises(value: object) -> None:
    for name in ("iss", "sub", "iat", "exp", "jti", "nbf", "aud"):
        try:
            claims = tokens.verify(forged(json.dumps(CLAIMS | {name: value})), KEY, issuer="heliosd", now=NOW)
        except Unauthenticated:
            continue
        assert isinstance(claims.subject, str)
        assert claims.expires_at > NOW


HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["HS256", "HS512", "none"])},
    optional={"typ": st.sampled_from(["JWT", "jwt"]), "kid": st.text(max_size=3) | st.integers(0, 9)},
)


@st.composite
def nearly_tokens(draw: st.DrawFn) -> str:
    """A token with good claims that PyJWT made, or somebody else; as it is, or with a few characters changed."""
    header = draw(HEADERS)
    secret = draw(st.sampled_from([SECRET, bytes(range(1, 33))]))
    if header["alg"] == "HS256" and isinstance(header.get("kid", ""), str) and draw(st.booleans()):
        text = jwt.encode(CLAIMS, secret, algorithm="HS256", headers=header)
    else:
        text = forged(json.dumps(CLAIMS), json.dumps(header), secret)
    for _ in range(draw(st.integers(0, 2))):
        at, cut = draw(st.integers(0, len(text))), draw(st.integers(0, 1))
        text = text[:at] + draw(st.sampled_from(["", "A", "B", "-", "_", "=", "."])) + text[at + cut :]
    return text


@given(nearly_tokens())
def test_of_tokens_with_good_claims_those_hold_that_pyjwt_verifies(text: str) -> None:
    # It trims "=", and takes any `typ`: the first is no base64url of RFC 7515, and the second is judged here.
    try:
        read = jwt.decode(
            text, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
        )
    except jwt.PyJWTError:
        assert_refused(text)
        return
    if "=" in text:
        assert_refused(text)
    else:
        assert verify(text).subject == read["sub"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "sub": st.text(max_size=3) | st.sampled_from(["x" * 256, "x" * 257, 1]),
            "iat": st.integers(-1, 10**12) | st.floats(0, 10.0**10),
            "exp": st.integers(0, 10**12) | st.floats(),
            "jti": st.sampled_from(["", "j", None, 7]),
            "roles": st.lists(st.sampled_from(["viewer", 1])),
            "pwd": st.sampled_from(["mark", 1, None]),
            "auth_time": st.sampled_from([0, 1.5, -1, True, "1", 1_700_000_000]),
            "aud": st.sampled_from(["", "api", ["api"]]),
            "nbf": st.sampled_from([0, NOW + 1]),
            "iss": st.sampled_from(["heliosd", "other"]),
        },
    ),
    st.sampled_from(["", "api"]),
    st.randoms(use_true_random=False),
)
def test_a_token_as_issued_is_read_as_any_other_of_the_same_claims(
    changes: dict[str, Any], audience: str, rng: random.Random
) -> None:
    as_issued = {**CLAIMS, "pwd": "", "auth_time": 1_700_000_000} | changes
    names = list(as_issued)
    if rng.random() < 0.3:
        rng.shuffle(names)
    payload = json.dumps({name: as_issued[name] for name in names}, separators=(",", ":"), ensure_ascii=False)
    outcomes: list[object] = []
    for header in ('{"alg":"HS256","typ":"JWT"}', '{"typ":"JWT","alg":"HS256"}'):
        try:
            outcomes.append(
                verify(forged(payload.encode("utf-8", "surrogatepass"), header), audience=audience)
            )
        except Unauthenticated as refused:
            outcomes.append(type(refused))
    assert outcomes[0] == outcomes[1]


TEXTS = st.text("ABCDEFXYZabcdefxyz0123456789+/=-_", min_size=32, max_size=80).map(str.encode)


BEGINNINGS = st.sampled_from([b"ssh-rsa", b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"MII", b"0Y0"])


@given(TEXTS | st.builds(bytes.__add__, BEGINNINGS, TEXTS))
def test_a_secret_of_letters_and_digits_is_refused_where_pyjwt_refuses_it(secret: bytes) -> None:
    try:
        jwt.algorithms.HMACAlgorithm(hashlib.sha256).prepare_key(secret)
        refused = len(set(secret)) == 1
    except jwt.InvalidKeyError:
        refused = True
    try:
        SigningKey(secret)
    except KeyUnusable:
        assert refused
    else:
        assert not refused


@pytest.mark.parametrize("secret", [b"", b"x", b"correct horse battery staple", bytes(31), bytes(64)])
def test_a_weak_key_is_refused(secret: bytes) -> None:
    with pytest.raises(KeyUnusable, match="signing key"):
        SigningKey(secret)


@pytest.mark.parametrize("form", ["pem", "der", "private", "ssh", "jwk"])
def test_a_public_key_is_no_secret(form: str) -> None:
    pair = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    public = pair.public_key()
    encodings = serialization.Encoding
    plain = serialization.NoEncryption()
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    forms = {
        "pem": public.public_bytes(encodings.PEM, subject),
        "der": public.public_bytes(encodings.DER, subject),
        "private": pair.private_bytes(encodings.PEM, serialization.PrivateFormat.PKCS8, plain),
        "ssh": public.public_bytes(encodings.OpenSSH, serialization.PublicFormat.OpenSSH),
        "jwk": json.dumps(jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)).encode(),
    }
    with pytest.raises(KeyUnusable):
        SigningKey(forms[form])


def test_a_key_does_not_show_itself() -> None:
    for shown in (repr(KEY), repr(KEY.signer), KEY.signer.name):
        assert SECRET.hex() not in shown
        assert repr(SECRET) not in shown
