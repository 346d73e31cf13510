"""Who may come in, and who may stay."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from jwt import PyJWK
from msgspec.structs import replace

from heliosd.auth import tokens
from heliosd.auth.access import Access
from heliosd.auth.external_issuer import FetchedKeys
from heliosd.auth.identity import Identity, TokenOrigin
from heliosd.auth.issuer_keys import IssuerKeys
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.auth.token_cache import KEPT, TokenCache, digest_of
from heliosd.clock import Instant
from heliosd.config.model import AuthConfig, Config, Settings, UserConfig
from heliosd.errors import Forbidden, Invalid, Unauthenticated
from heliosd.store.changes import TokenRevoked
from tests.support.issuer_tokens import ISSUER, jwk, key, signed
from tests.support.passwords import cheap_hash

NOW = 1_700_000_000.0
EVA = UserConfig(name="eva", password_hash=cheap_hash("apple"), roles=("viewer",))
ADAM = UserConfig(name="adam", password_hash=cheap_hash("pear"), roles=("admin", "ghost"))
GENERATED = UserConfig(name="admin", password_hash=cheap_hash("plum"), roles=("admin",))


def at(wall: float, mono: float = 0.0) -> Instant:
    return Instant(wall, mono)


class House:
    """An `Access` whose configuration can be changed as a reload would."""

    def __init__(self, *users: UserConfig, admin: UserConfig | None = None) -> None:
        self.settings = Settings(Config(auth=AuthConfig(users=users)))
        self.revoked: dict[str, float] = {}
        self.access = Access(self.settings, KeyRing(SigningKey(bytes(range(32)))), self.revoked, admin)

    def reload(self, *users: UserConfig, **auth: object) -> None:
        changed = replace(self.settings.current.auth, users=users, **auth)
        self.settings.current = replace(self.settings.current, auth=changed)


@pytest.fixture(name="house")
def access_of_two_users() -> House:
    return House(EVA, ADAM)


def test_a_token_stands_for_its_user_with_the_rights_of_the_roles(house: House) -> None:
    issued = house.access.issue("eva", NOW)
    assert house.access.identify(issued.token, NOW + 1) == issued.identity
    assert issued.identity.roles == ("viewer",)
    assert issued.identity.expires_at == NOW + 28_800
    assert issued.identity.may("cluster:watch")
    assert not issued.identity.may("cluster:write")
    assert house.access.issue("adam", NOW).identity.may("cluster:admin")


def test_a_role_that_is_not_defined_gives_nothing(house: House) -> None:
    house.reload(replace(ADAM, roles=("ghost",)))
    assert house.access.issue("adam", NOW).identity.permissions == frozenset()


def test_a_token_may_be_for_a_time_of_its_own(house: House) -> None:
    assert house.access.issue("eva", NOW, 60).identity.expires_at == NOW + 60


def test_no_token_is_issued_for_an_unknown_user(house: House) -> None:
    with pytest.raises(Unauthenticated):
        house.access.issue("nobody", NOW)


def test_a_token_for_a_checked_password_is_issued_only_while_the_user_still_has_it(house: House) -> None:
    checked = house.access.check_password("eva", "apple")
    assert house.access.issue("eva", NOW, password_hash=checked).identity.user_id == "eva"
    house.reload(replace(EVA, password_hash=cheap_hash("apple")))  # the same word, hashed anew
    with pytest.raises(Unauthenticated, match="Invalid credentials"):
        house.access.issue("eva", NOW, password_hash=checked)


def test_the_roles_of_the_present_configuration_hold_not_the_tokens(house: House) -> None:
    token = house.access.issue("adam", NOW).token
    house.reload(replace(ADAM, roles=("viewer",)))
    assert not house.access.identify(token, NOW).may("cluster:admin")


def test_a_token_of_a_removed_user_is_refused(house: House) -> None:
    token = house.access.issue("eva", NOW).token
    house.reload(ADAM)
    with pytest.raises(Unauthenticated, match=r"^Invalid token$"):
        house.access.identify(token, NOW)


def test_a_reload_of_the_issuer_or_the_audience_ends_tokens(house: House) -> None:
    token = house.access.issue("eva", NOW).token
    house.reload(EVA, issuer="other")
    with pytest.raises(Unauthenticated):
        house.access.identify(token, NOW)
    house.reload(EVA, issuer="heliosd", audience="dash")
    with pytest.raises(Unauthenticated):
        house.access.identify(token, NOW)


def test_a_revoked_token_is_refused_and_the_change_says_what_to_save(house: House) -> None:
    issued, other = house.access.issue("eva", NOW), house.access.issue("eva", NOW)
    who = issued.identity
    assert house.access.revoke(who.jti, who.expires_at, at(NOW)) == [TokenRevoked(who.jti, who.expires_at)]
    assert house.revoked == {who.jti: who.expires_at}
    for token in (issued.token, issued.token + "=", issued.token + "=="):
        with pytest.raises(Unauthenticated, match=r"^Invalid token$"):
            house.access.identify(token, NOW)
    assert house.access.identify(other.token, NOW) == other.identity


def test_revocations_of_a_former_run_hold() -> None:
    house = House(EVA)
    issued = house.access.issue("eva", NOW)
    house.revoked[issued.identity.jti] = issued.identity.expires_at
    with pytest.raises(Unauthenticated):
        house.access.identify(issued.token, NOW)


def test_many_revocations_of_expired_tokens_become_one_and_none_of_them_holds_again(house: House) -> None:
    issued = [house.access.issue("eva", NOW, 60 + number) for number in range(1500)]
    lasting = house.access.issue("eva", NOW, 10_000)
    saved: dict[str, float] = {}
    for one in issued:
        for change in house.access.revoke(
            one.identity.jti, one.identity.expires_at, at(one.identity.expires_at)
        ):
            if not change.jti:
                saved = {jti: expiry for jti, expiry in saved.items() if expiry > change.expires_at}
            saved[change.jti] = change.expires_at
    assert len(saved) < 1100
    assert saved == house.revoked
    house.access = Access(house.settings, house.access.keys, saved)
    for one in issued:
        with pytest.raises(Unauthenticated):
            house.access.identify(one.token, NOW)  # a clock that is set back to the beginning
        with pytest.raises(Unauthenticated):
            house.access.refreshed(one.identity, NOW)
    assert house.access.identify(lasting.token, NOW) == lasting.identity


def test_a_revoked_token_does_not_hold_again_when_others_are_revoked_on_a_clock_that_was_set_back(
    house: House,
) -> None:
    access, revoked = house.access, house.access.issue("eva", NOW, 1000)
    access.revoke(revoked.identity.jti, revoked.identity.expires_at, at(NOW))

    def revoke_many(kind: str, expires_at: float, now: float) -> None:
        for number in range(1100):
            access.revoke(f"{kind}-{number}", expires_at, at(now))

    revoke_many("late", NOW + 900, NOW + 2000)
    assert revoked.identity.jti not in house.revoked, "it has become one revocation with the others"
    revoke_many("early", NOW - 100, NOW)
    assert len(house.revoked) < 1100
    with pytest.raises(Unauthenticated):
        access.identify(revoked.token, NOW)


def test_a_logout_while_the_clock_is_years_ahead_ends_only_the_tokens_that_have_ended(house: House) -> None:
    access, year = house.access, 365 * 86_400.0
    access.started = at(NOW, 5.0)
    old = access.issue("eva", NOW, 60)
    access.revoke(old.identity.jti, old.identity.expires_at, at(NOW, 5.0))
    for number in range(1100):
        access.revoke(f"lasting-{number}", NOW + year, at(NOW, 5.0))
    for number in range(1100):
        access.revoke(f"ahead-{number}", NOW + 10 * year, at(NOW + 10 * year, 105.0))
    assert old.identity.jti not in house.revoked, "its end has passed on both clocks"
    fresh = access.issue("eva", NOW + 110)
    assert access.identify(fresh.token, NOW + 110) == fresh.identity
    with pytest.raises(Unauthenticated):
        access.identify(old.token, NOW)


class Walked(dict[str, float]):
    """Counts the entries that are walked over."""

    steps = 0

    def values(self) -> Any:
        self.steps += len(self)
        return super().values()

    def items(self) -> Any:
        self.steps += len(self)
        return super().items()


def test_a_revocation_does_not_walk_over_all_that_are_kept() -> None:
    few, many = 500, 100_000
    for kept in (few, many):
        revoked = Walked({f"old-{number}": NOW + 10_000 for number in range(kept)})
        access = Access(House(EVA).settings, KeyRing(SigningKey(bytes(range(32)))), revoked)
        for number in range(few):
            access.revoke(f"new-{number}", NOW + 10_000, at(NOW))
        assert len(revoked) == kept + few
        assert revoked.steps <= 2 * kept
        # Once they have ended, they go when there are twice as many.
        for number in range(2 * kept):
            access.revoke(f"late-{number}", NOW + 30_000, at(NOW + 20_000))
        assert "old-0" not in revoked
        assert len(revoked) <= 2 * kept + few + 1
        assert revoked.steps <= 20 * kept


def test_refreshing_does_not_prolong_a_login_beyond_the_sessions_length(house: House) -> None:
    house.reload(EVA, session_ttl=100_000.0)
    issued = house.access.issue("eva", NOW)
    for moment in (20_000, 40_000, 60_000, 80_000, 99_990):
        identity = house.access.identify(issued.token, NOW + moment)
        issued = house.access.renew(identity, NOW + moment)
        assert issued.identity.expires_at == NOW + min(moment + 28_800, 100_000)
    with pytest.raises(Unauthenticated):
        house.access.identify(issued.token, NOW + 100_000)
    long = house.access.issue("eva", NOW, 365 * 86_400.0)
    identity = house.access.identify(long.token, NOW + 100_001)
    with pytest.raises(Unauthenticated, match="login has ended"):
        house.access.renew(identity, NOW + 100_001)


def test_a_token_of_an_older_version_counts_as_a_login_of_its_issue(house: House) -> None:
    house.reload(EVA, session_ttl=100_000.0)
    key = house.access.keys.signer
    body = {"iss": "heliosd", "sub": "eva", "iat": NOW, "exp": NOW + 90_000, "jti": "old", "roles": []}
    token = key.sign(json.dumps({**body, "pwd": key.mark("password", EVA.password_hash)}).encode())
    identity = house.access.identify(token, NOW + 80_000)
    assert house.access.renew(identity, NOW + 80_000).identity.expires_at == NOW + 100_000


def test_an_expired_token_does_not_come_back_with_the_clock(house: House) -> None:
    token = house.access.issue("eva", NOW, 60).token
    with pytest.raises(Unauthenticated):
        house.access.identify(token, NOW + 61)
    with pytest.raises(Unauthenticated):
        house.access.identify(token, NOW)


def test_an_open_connection_keeps_the_rights_that_hold_now(house: House) -> None:
    who = house.access.issue("adam", NOW).identity
    house.reload(replace(ADAM, roles=("viewer",)))
    refreshed = house.access.refreshed(who, NOW)
    assert refreshed.roles == ("viewer",)
    assert (refreshed.jti, refreshed.expires_at) == (who.jti, who.expires_at)


def test_an_open_connection_ends_when_its_token_does(house: House) -> None:
    who = house.access.issue("eva", NOW, 60).identity
    with pytest.raises(Unauthenticated):
        house.access.refreshed(who, NOW + 60)
    house.access.revoke(who.jti, who.expires_at, at(NOW))
    with pytest.raises(Unauthenticated):
        house.access.refreshed(who, NOW)


def test_an_open_connection_ends_when_its_user_or_right_is_gone(house: House) -> None:
    who = house.access.issue("eva", NOW).identity
    with pytest.raises(Forbidden):
        house.access.refreshed(who, NOW, "cluster:write")
    house.reload(replace(EVA, roles=()))
    with pytest.raises(Forbidden):
        house.access.refreshed(who, NOW)
    house.reload(ADAM)
    with pytest.raises(Forbidden):
        house.access.refreshed(who, NOW)


def test_a_password_is_right_for_its_own_user_only(house: House) -> None:
    assert house.access.check_password("eva", "apple") == EVA.password_hash
    assert not house.access.check_password("eva", "pear")
    assert not house.access.check_password("eva", "")
    # An unknown name is compared with the first user's hash for the time it takes, never for its result.
    assert not house.access.check_password("nobody", "apple")
    assert not house.access.check_password("EVA", "apple")


def test_a_password_is_recognized_once_it_was_right_and_until_it_is_changed(house: House) -> None:
    assert not house.access.recognized("eva", "apple")
    assert not house.access.check_password("eva", "pear")
    assert house.access.check_password("eva", "apple")
    assert house.access.recognized("eva", "apple") == EVA.password_hash
    for name, password in (("eva", "pear"), ("eva", ""), ("adam", "apple"), ("nobody", "apple"), ("", "")):
        assert not house.access.recognized(name, password)
    house.reload(replace(EVA, password_hash=cheap_hash("apple")))
    assert not house.access.recognized("eva", "apple")
    house.reload(ADAM)
    assert not house.access.recognized("eva", "apple")


def test_without_any_user_no_password_is_right() -> None:
    assert not House().access.check_password("admin", "plum")


def test_the_generated_admin_counts_only_while_no_user_is_configured() -> None:
    house = House(admin=GENERATED)
    token = house.access.issue("admin", NOW).token
    assert house.access.check_password("admin", "plum")
    assert house.access.identify(token, NOW).may("cluster:admin")
    house.reload(EVA)
    assert not house.access.check_password("admin", "plum")
    with pytest.raises(Unauthenticated):
        house.access.identify(token, NOW)


def test_an_issued_token_is_not_in_its_repr(house: House) -> None:
    issued = house.access.issue("eva", NOW)
    assert issued.token not in repr(issued)


# -- passwords and keys ----------------------------------------------------------------------------------------


def test_a_changed_password_ends_the_tokens_of_its_user_only(house: House) -> None:
    evas, adams = house.access.issue("eva", NOW), house.access.issue("adam", NOW)
    house.reload(replace(EVA, password_hash=cheap_hash("apple")), ADAM)  # the same word, hashed anew
    for refused in (house.access.identify, house.access.refreshed):
        with pytest.raises(Unauthenticated, match=r"^Invalid token$"):
            refused(evas.token if refused == house.access.identify else evas.identity, NOW)  # type: ignore[arg-type]
    assert house.access.identify(adams.token, NOW) == house.access.refreshed(adams.identity, NOW)
    house.reload(EVA, ADAM)
    assert house.access.identify(evas.token, NOW) == evas.identity


def test_a_token_tells_nothing_of_the_password(house: House) -> None:
    body = json.loads(base64.urlsafe_b64decode(house.access.issue("eva", NOW).token.split(".")[1] + "=="))
    assert len(body["pwd"]) == 22
    assert EVA.password_hash not in json.dumps(body)
    again = House(EVA)
    again.access.keys = KeyRing(SigningKey(bytes(range(1, 33))))
    other = again.access.issue("eva", NOW).identity.token_origin
    assert other.password != body["pwd"]


def test_a_new_key_signs_while_the_old_one_still_verifies(house: House) -> None:
    old, new = house.access.keys.signer, SigningKey(bytes(range(1, 33)))
    before = house.access.issue("eva", NOW)
    house.access.keys = KeyRing(new, old)
    after = house.access.issue("eva", NOW)
    for issued in (before, after):
        assert house.access.identify(issued.token, NOW) == issued.identity
        assert house.access.refreshed(issued.identity, NOW) == issued.identity
    house.access.keys = KeyRing(new)
    assert house.access.identify(after.token, NOW) == house.access.refreshed(after.identity, NOW)
    with pytest.raises(Unauthenticated):
        house.access.identify(before.token, NOW)
    with pytest.raises(Unauthenticated):
        house.access.refreshed(before.identity, NOW)


def test_an_open_connection_ends_with_its_issuer_or_audience(house: House) -> None:
    who = house.access.issue("eva", NOW).identity
    for changed in ({"issuer": "other"}, {"audience": "dash", "issuer": "heliosd"}):
        house.reload(EVA, ADAM, **changed)
        with pytest.raises(Unauthenticated):
            house.access.refreshed(who, NOW)


def test_a_token_that_was_reported_as_expired_does_not_hold(house: House) -> None:
    issued = house.access.issue("eva", NOW)
    house.access.expire(issued.identity.jti)
    with pytest.raises(Unauthenticated):
        house.access.identify(issued.token, NOW)


# -- the outside issuer ----------------------------------------------------------------------------------------

URL = "http://127.0.0.1:1/keys"


@pytest.fixture
def open_house(house: House) -> House:
    house.reload(EVA, ADAM, jwks_url=URL, jwks_issuer=ISSUER)
    house.access.outside_keys = FetchedKeys.of(URL, [PyJWK(jwk(key("EdDSA"), "k"))])
    return house


def outside_token(**changes: Any) -> str:
    return signed(key("EdDSA"), "k", alg="EdDSA", **changes)


def test_for_an_outside_token_its_claim_of_roles_holds(open_house: House) -> None:
    who = open_house.access.identify(outside_token(roles=["viewer", "unheard-of"]), NOW)
    assert (who.user_id, who.roles) == ("olga", ("viewer", "unheard-of"))
    assert who.permissions == {"cluster:watch", "cluster:read"}
    assert open_house.access.identify(outside_token(roles=["unheard-of"]), NOW).permissions == frozenset()
    assert open_house.access.identify(outside_token(roles=["admin"]), NOW).may("cluster:admin")


def test_what_an_outside_role_may_is_for_the_configuration_to_say(open_house: House) -> None:
    who = open_house.access.identify(outside_token(), NOW)
    open_house.reload(EVA, ADAM, roles={"viewer": frozenset({"cluster:watch"})})
    assert open_house.access.refreshed(who, NOW).permissions == {"cluster:watch"}
    open_house.reload(EVA, ADAM, roles={})
    with pytest.raises(Forbidden):
        open_house.access.refreshed(who, NOW)


def test_an_outside_user_is_never_a_user_of_ours(open_house: House) -> None:
    access = open_house.access
    outsider = access.identify(outside_token(sub="adam", roles=["viewer"]), NOW)
    own = access.issue("adam", NOW).identity
    assert not outsider.may("cluster:admin")
    assert outsider.user != own.user
    assert own.account == "adam" != outsider.account
    with pytest.raises(Invalid):
        access.renew(outsider, NOW)
    assert access.renew(own, NOW).identity.user_id == "adam"
    # Our password and key are no matter of theirs.
    open_house.reload(EVA)
    assert access.refreshed(outsider, NOW).user_id == "adam"


def test_neither_issuer_can_speak_for_the_other(open_house: House) -> None:
    with pytest.raises(Unauthenticated):
        open_house.access.identify(outside_token(iss="heliosd"), NOW)
    ours, _ = tokens.issue(
        open_house.access.keys, issuer=ISSUER, subject="adam", roles=("admin",), now=NOW, ttl=60
    )
    with pytest.raises(Unauthenticated):
        open_house.access.identify(ours, NOW)


def test_outside_tokens_end_with_their_configuration(open_house: House) -> None:
    access, token = open_house.access, outside_token()
    who = access.identify(token, NOW)
    for changed in (
        {"jwks_url": ""},
        {"jwks_url": URL, "jwks_issuer": "other"},
        {"jwks_issuer": ISSUER, "audience": "dash"},
    ):
        open_house.reload(EVA, ADAM, **changed)
        with pytest.raises(Unauthenticated):
            access.identify(token, NOW)
        with pytest.raises(Unauthenticated):
            access.refreshed(who, NOW)


def test_an_open_connection_ends_with_the_url_of_its_outside_issuer(open_house: House) -> None:
    access = open_house.access
    outsider, own = access.identify(outside_token(), NOW), access.issue("eva", NOW).identity
    open_house.reload(EVA, ADAM, jwks_url=URL + "2")
    with pytest.raises(Unauthenticated, match="Invalid token"):
        access.refreshed(outsider, NOW)
    assert access.refreshed(own, NOW) == own
    open_house.reload(EVA, ADAM, jwks_url=URL)
    assert access.refreshed(outsider, NOW) == outsider


def test_keys_of_another_url_do_not_count(open_house: House) -> None:
    open_house.reload(EVA, ADAM, jwks_url=URL + "2")
    with pytest.raises(Unauthenticated):
        open_house.access.identify(outside_token(), NOW)
    assert open_house.access.identify(open_house.access.issue("eva", NOW).token, NOW).user_id == "eva"


def test_an_outside_token_can_be_revoked_and_does_not_come_back_with_the_clock(open_house: House) -> None:
    access = open_house.access
    for token in (outside_token(), outside_token(jti=None)):
        who = access.identify(token, NOW)
        access.revoke(who.jti, who.expires_at, at(NOW))
        with pytest.raises(Unauthenticated):
            access.identify(token, NOW)
        with pytest.raises(Unauthenticated):
            access.refreshed(who, NOW)
    late = outside_token(jti="late")
    for moment in (NOW + 900, NOW):
        with pytest.raises(Unauthenticated):
            access.identify(late, moment)


def test_a_token_that_was_accepted_is_asked_everything_again(house: House) -> None:
    access = house.access

    def refused(at: float = NOW + 1) -> bool:
        try:
            access.identify(token, at)
        except Unauthenticated:
            return True
        return False

    token = access.issue("eva", NOW).token
    assert not refused()
    keys, auth, users = access.keys, house.settings.current.auth, (EVA, ADAM)

    access.keys = KeyRing(SigningKey(bytes(range(1, 33))))
    assert refused()
    access.keys = keys
    house.reload(*users, issuer="another")
    assert refused()
    house.reload(*users, issuer=auth.issuer, audience="others")
    assert refused()
    house.reload(ADAM, audience="")
    assert refused()
    house.reload(replace(EVA, password_hash=cheap_hash("cherry")))
    assert refused()
    house.reload(replace(EVA, roles=("admin",)))
    assert access.identify(token, NOW + 1).may("cluster:admin")
    assert refused(NOW + 28_800)
    assert refused()  # the clock was set back
    token = access.issue("eva", NOW).token
    identity = access.identify(token, NOW + 1)
    access.revoke(identity.jti, identity.expires_at, at(NOW + 1))
    assert refused()


def test_keys_that_the_outside_issuer_takes_away_stop_counting_for_known_tokens(house: House) -> None:
    house.reload(EVA, jwks_url=URL, jwks_issuer=ISSUER)
    house.access.outside_keys = FetchedKeys.of(URL, [PyJWK(jwk(key("EdDSA"), "k"))])
    token = signed(key("EdDSA"), "k", alg="EdDSA")
    house.access.identify(token, NOW)
    house.access.identify(token, NOW + 1)
    house.access.outside_keys = IssuerKeys(URL)
    with pytest.raises(Unauthenticated):
        house.access.identify(token, NOW + 2)


def test_only_the_newest_verified_tokens_are_kept() -> None:
    known, against = TokenCache(), (object(),)
    token_origin = TokenOrigin(issuer="", audience="", key="", password="")
    eva = Identity(
        user_id="eva",
        roles=(),
        permissions=frozenset(),
        jti="j",
        issued_at=NOW,
        expires_at=NOW + 60,
        token_origin=token_origin,
    )
    for number in range(KEPT + 1):
        known.keep(digest_of(str(number)), NOW, eva, against)
    assert known.find(digest_of("0"), NOW, against) is None
    assert known.find(digest_of(str(KEPT)), NOW, against) is eva
    assert known.find(digest_of(str(KEPT)), NOW - 1, against) is None
    assert known.find(digest_of(str(KEPT)), NOW, (object(),)) is None
