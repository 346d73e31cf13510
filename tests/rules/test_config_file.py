"""What the configuration file may contain, and how its mistakes are reported."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields

from heliosd.auth.passwords import DECOY
from heliosd.clock import duration_text
from heliosd.config import schema
from heliosd.config.addresses import Listen
from heliosd.config.lines import KeyLines
from heliosd.config.loader import data_directory, ensure_data_directory, load, parse
from heliosd.config.model import ClusterConfig, Config, MetricsConfig, PeerConfig
from heliosd.config.values import InvalidValue, duration
from heliosd.errors import ConfigError, StoreError

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
USER = f'[[auth.users]]\nname = "eva"\npassword_hash = "{DECOY}"\nroles = ["viewer"]\n'


def problems(text: str) -> dict[str, str]:
    """Key -> message of every mistake in `text`."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return {problem.key: problem.message for problem in caught.value.problems}


def keys_of(struct: Struct, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for field in fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, Struct) and not isinstance(value, Listen):
            found |= keys_of(value, f"{prefix}{field.name}.")
        else:
            found.add(f"{prefix}{field.name}")
    return found


def keys_in(table: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in table.items():
        path = f"{prefix}{name}"
        found |= keys_in(value, f"{path}.") if isinstance(value, dict) and path != "auth.roles" else {path}
    return found


def test_an_empty_file_is_the_defaults() -> None:
    assert parse("") == Config()


def test_the_example_is_the_defaults() -> None:
    assert load(EXAMPLE) == Config()


def test_the_example_names_every_key_and_its_user_can_be_uncommented() -> None:
    text = re.sub(
        r"^# (?=\[\[auth\.users]]|\[\[alert]]|(name|password_hash|roles|when|for|url|secret_file) =)",
        "",
        EXAMPLE.read_text(),
        flags=re.M,
    )
    assert keys_in(tomllib.loads(text)) == keys_of(Config())
    assert [user.name for user in parse(text).auth.users] == ["admin"]
    assert [(alert.name, alert.hold) for alert in parse(text).alert] == [("no-leader", 10.0)]


def test_every_mistake_is_reported_at_once_with_its_key() -> None:
    found = problems(f"""
        nod = 1
        [node]
        id = "../x"
        [server]
        listen = ":8080"
        tls_cert = "cert.pem"
        allowed_origins = ["https://a.example/", "null", "*", "ftp://b"]
        [websocket]
        send_bufer = 1
        send_buffer = true
        broadcast_buffer = 0
        status_interval = 0.001
        latency_interval = "5 minutes"
        slow_consumer = "wait"
        compression = 1
        max_clients = 10.0
        [auth]
        jwks_url = "https://id.example/keys"
        [auth.roles]
        admin = ["admin:*", "cluster:fly"]
        [[auth.users]]
        name = "eva"
        password_hash = "hunter2"
        roles = ["admin", "ghost"]
        [[auth.users]]
        name = "eva"
        password_hash = "{DECOY}"
        roles = "admin"
        [[auth.users]]
        nickname = "x"
        [cluster]
        backend = "zookeeper"
        [cluster.simulated]
        loss = 1.5
        peers = [{{id = "a", address = "h:1"}}, {{id = "a", address = "h:1"}}, {{id = "b"}}]
        [log]
        level = "INFO"
    """)
    assert set(found) == {
        "nod",
        "node.id",
        "server.listen",
        "server.tls_key",
        "server.allowed_origins[0]",
        "server.allowed_origins[2]",
        "server.allowed_origins[3]",
        "websocket.send_bufer",
        "websocket.send_buffer",
        "websocket.broadcast_buffer",
        "websocket.status_interval",
        "websocket.latency_interval",
        "websocket.slow_consumer",
        "websocket.compression",
        "websocket.max_clients",
        "auth.jwks_issuer",
        "auth.roles.admin[1]",
        "auth.users[0].password_hash",
        "auth.users[0].roles[1]",
        "auth.users[1].name",
        "auth.users[1].roles",
        "auth.users[2].nickname",
        "auth.users[2].name",
        "auth.users[2].password_hash",
        "auth.users[2].roles",
        "cluster.backend",
        "cluster.simulated.loss",
        "cluster.simulated.peers[1].id",
        "cluster.simulated.peers[1].address",
        "cluster.simulated.peers[2].address",
        "log.level",
    }
    assert "did you mean send_buffer?" in found["websocket.send_bufer"]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "value", ["true", "nan", "inf", "-inf", "1e309", "-1", "0", '""', '"5x"', "[]", "{}"]
)
def test_what_is_no_interval_is_refused(value: str) -> None:
    assert set(problems(f"[websocket]\nping_interval = {value}")) == {"websocket.ping_interval"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", Listen("127.0.0.1", 8080)),
        ("localhost:0", Listen("localhost", 0)),
        ("[::1]:443", Listen("::1", 443)),
        ("fd:3", Listen(fd=3)),
        ("unix:/run/heliosd.sock", Listen(path="/run/heliosd.sock")),
    ],
)
def test_a_listen_address_can_be_written_in_four_ways(text: str, expected: Listen) -> None:
    (found,) = parse(f'[server]\nlisten = "{text}"').server.listen
    assert found == expected
    assert str(found) == text


def test_several_addresses_can_be_listened_on() -> None:
    found = parse('[server]\nlisten = ["127.0.0.1:8080", "unix:/a", "fd:3"]\nreuse_port = true').server
    assert found.listen == (Listen("127.0.0.1", 8080), Listen(path="/a"), Listen(fd=3))
    assert found.reuse_port
    assert set(problems("[server]\nlisten = []")) == {"server.listen"}
    assert set(problems('[server]\nlisten = ["127.0.0.1:1", ":1"]')) == {"server.listen[1]"}


@pytest.mark.parametrize("text", ["/", "helios", "/helios/", "//a", "/a//b", "/a b", "/a?b", "/%41", "/ä"])
def test_what_is_no_base_path_is_refused(text: str) -> None:
    assert set(problems(f'[server]\nbase_path = "{text}"')) == {"server.base_path"}
    assert parse('[server]\nbase_path = "/ops/helios"').server.base_path == "/ops/helios"


def test_trusted_proxies_are_networks_or_unix() -> None:
    found = parse('[server]\ntrusted_proxies = ["10.0.0.1", "192.168.0.0/16", "::1", "fd00::/8", "unix"]')
    expected = ("10.0.0.1/32", "192.168.0.0/16", "::1/128", "fd00::/8", "unix")
    assert found.server.trusted_proxies == expected
    for index, text in enumerate(["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "*"]):
        listed = ", ".join(['"10.0.0.1"'] * index + [f'"{text}"'])
        assert set(problems(f"[server]\ntrusted_proxies = [{listed}]")) == {
            f"server.trusted_proxies[{index}]"
        }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "::1:8080",
        "[::1]",
        "[x]:1",
        "h:65536",
        "h:-1",
        "h: 1",
        "fd:2",
        "fd:x",
        "a b:1",
        "unix:",
        "unix:a",
        "unix:/" + "a" * 107,
    ],
)
def test_what_is_no_listen_address_is_refused(text: str) -> None:
    assert set(problems(f'[server]\nlisten = "{text}"')) == {"server.listen"}


def test_an_origin_is_kept_as_browsers_write_it() -> None:
    config = parse('[server]\nallowed_origins = ["HTTPS://Ops.Example:8443", "null", "http://[::1]:3000"]')
    assert config.server.allowed_origins == ("https://ops.example:8443", "null", "http://[::1]:3000")


def test_a_peer_cannot_have_this_nodes_id_or_address() -> None:
    assert set(problems('[node]\nid = "node-2"')) == {"cluster.simulated.peers[0].id"}
    assert set(problems('[cluster.simulated]\naddress = "127.0.0.1:7002"')) == {
        "cluster.simulated.peers[1].address"
    }


def test_a_node_on_etcd_may_be_called_as_a_simulated_peer() -> None:
    assert parse('[node]\nid = "node-2"\n[cluster]\nbackend = "etcd"').node.id == "node-2"


class OneBackendMore(ClusterConfig, frozen=True, kw_only=True):
    backend: Literal["simulated", "etcd", "other"] = "simulated"  # type: ignore[assignment]
    other: MetricsConfig = MetricsConfig()


def test_a_backend_that_the_struct_names_is_read_with_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ClusterConfig", OneBackendMore)
    text = '[node]\nid = "node-2"\n[cluster]\nbackend = "other"\n[cluster.other]\npublic = true'
    assert parse(text).cluster == OneBackendMore(backend="other", other=MetricsConfig(public=True))


def test_peers_may_be_none() -> None:
    assert parse("[cluster.simulated]\npeers = []").cluster.simulated.peers == ()
    one = parse('[cluster.simulated]\npeers = [{id = "n", address = "[::1]:9"}]').cluster.simulated.peers
    assert one == (PeerConfig("n", "[::1]:9"),)


def test_the_roles_of_the_file_replace_the_default_ones() -> None:
    assert set(parse('[auth.roles]\nadmin = ["cluster:read"]').auth.roles) == {"admin"}
    assert set(problems("[auth.roles]\nops = []\n" + USER)) == {"auth.users[0].roles[0]"}


def test_without_users_there_must_be_a_role_for_the_first_one() -> None:
    assert set(problems("[auth.roles]\nops = []")) == {"auth.roles"}


def test_a_user_has_the_roles_of_the_file() -> None:
    assert [(user.name, user.roles) for user in parse(USER).auth.users] == [("eva", ("viewer",))]


@pytest.mark.parametrize("name", ["", " eva", "e\\u0000va", "e\\u202eva", "e\\nva", "e" * 129, "e\\u0301va"])
def test_a_name_that_could_deceive_a_reader_is_refused(name: str) -> None:
    assert set(problems(USER.replace('"eva"', f'"{name}"'))) == {"auth.users[0].name"}


def test_things_that_belong_together_are_asked_for_together() -> None:
    found = problems('[server]\ntls_key = "k"\n[cluster.etcd]\nclient_cert = "c"\nusername = "u"')
    assert set(found) == {"server.tls_cert", "cluster.etcd.client_key", "cluster.etcd.password_file"}


def test_a_strange_key_stays_on_its_line() -> None:
    (key,) = problems('"a\\nb\\u001b" = 1')
    assert key == '"a\\nb\\u001b"'


@pytest.mark.parametrize("text", ["a = ", "x" + "[" * 100_000, "a = " + "[" * 100_000, "a = 2020-99-99"])
def test_what_is_not_toml_is_a_problem_too(text: str) -> None:
    assert problems(text)[""].startswith("not TOML: ")


def lines(text: str) -> dict[str, int | None]:
    """Key -> line of every mistake in `text`."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return {problem.key: problem.line for problem in caught.value.problems}


def test_every_mistake_has_the_line_of_its_key() -> None:
    text = """\
server.shutdown_grace = -1
[websocket]  # a comment
send_buffer = 0
"odd key" = 1
[auth]
roles = { admin = ["admin:*"], odd = [
    "cluster:fly",
] }
[[auth.users]]
name = \'\'\'
a
\'\'\'
[[auth.users]]
name = "b"
password_hash = "x"
[cluster]
simulated = { loss = 2 }
"""
    assert lines(text) == {
        "server.shutdown_grace": 1,
        "websocket.send_buffer": 3,
        'websocket."odd key"': 4,
        "auth.roles.odd[0]": 6,
        "auth.users[0].name": 10,
        "auth.users[0].password_hash": 9,
        "auth.users[0].roles": 9,
        "auth.users[1].password_hash": 15,
        "auth.users[1].roles": 13,
        "cluster.simulated.loss": 17,
    }


def test_a_mistake_in_a_default_has_no_line() -> None:
    assert lines('[node]\nid = "node-2"\n') == {"cluster.simulated.peers[0].id": None}


@pytest.mark.parametrize(
    ("text", "key", "first", "second"),
    [
        ("[log]\nlevel = 'info'\n\nlevel = 'debug'\n", "log.level", 2, 4),
        ("[log]\n[server]\n[log]\n", "log", 1, 3),
        ("server.listen = 'a:1'\nserver.listen = 'a:2'\n", "server.listen", 1, 2),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(
    text: str, key: str, first: int, second: int
) -> None:
    assert problems(text) == {key: f"stands twice, first on line {first}"}
    assert lines(text) == {key: second}


@given(st.text(st.sampled_from("[]\"'{}=.,\n ab1#\\\\"), max_size=60))
def test_lines_are_found_in_any_text_without_an_error(text: str) -> None:
    found = KeyLines(text)
    assert all(1 <= first < second for _, first, second in found.twice)


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 100 + " = 1\n",
        "[a" + ".a" * 100 + "]\n",
        "server: 8080\n" * 20_000,
        "a = [\n" + "[1,\n" * 20_000,
        'a = """\n' * 20_000,
    ],
)
def test_a_long_file_that_is_no_configuration_is_refused(text: str) -> None:
    assert problems(text)


def test_a_client_that_answers_pings_must_not_be_silent_for_the_read_timeout() -> None:
    assert problems("[websocket]\nping_interval = 20\nread_timeout = 20\n") == {
        "websocket.read_timeout": "must be longer than ping_interval, which is 20 s"
    }
    assert problems("[websocket]\nread_timeout = 20\n").keys() == {"websocket.read_timeout"}
    assert problems('[websocket]\nping_interval = "1m"\n') == {
        "websocket.ping_interval": "must be shorter than read_timeout, which is 60 s"
    }
    parse("[websocket]\nping_interval = 20\nread_timeout = 20.5\n")


def test_an_ipv4_address_in_ipv6_form_is_that_ipv4_address() -> None:
    (listen,) = parse('server.listen = "[::ffff:127.0.0.1]:8080"').server.listen
    assert (listen.host, listen.port) == ("127.0.0.1", 8080)


def test_a_file_that_cannot_be_read_is_a_problem_too(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "absent.toml", tmp_path, binary):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            load(path)


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/eva")
    file = tmp_path / "c.toml"
    file.write_text(
        '[node]\ndata_dir = "data"\n[auth]\njwt_secret_file = "/etc/key"\n[cluster.etcd]\nca_cert = "~/ca"'
    )
    config = load(file)
    assert config.node.data_dir == tmp_path / "data"
    assert config.auth.jwt_secret_file == Path("/etc/key")
    assert config.cluster.etcd.ca_cert == Path("/home/eva/ca")


def test_a_name_that_the_locale_cannot_encode_is_a_mistake_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.fsencode", lambda text: str(text).encode("latin-1"))
    alert = '[[alert]]\nname = "a"\nwhen = "leader_lost"\ncommand = ["/bin/page", "żółw"]'
    found = problems(f'[auth]\njwt_secret_file = "/etc/żółw"\n{alert}')
    assert set(found) == {"auth.jwt_secret_file", "alert[0].command[1]"}
    assert set(found.values()) == {"has characters that the locale's encoding does not have"}


def test_without_a_home_directory_the_data_directory_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 9)
    with pytest.raises(StoreError, match=r"set node\.data_dir"):
        data_directory(Config())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15m", 900), ("1h30m", 5400), ("250ms", 0.25), ("24h", 86_400), ("365d", 31_536_000), ("1.5s", 1.5)],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@given(st.integers(0, 10**9))
def test_a_duration_that_heliosd_writes_is_read_as_the_same(seconds: int) -> None:
    assert duration(duration_text(seconds)) == seconds


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert duration(text) >= 0
    except InvalidValue:
        assert not re.fullmatch(r"[1-9][0-9]{0,5}(ms|s|m|h|d)", text)


LEAVES = st.one_of(
    st.booleans().map(lambda flag: "true" if flag else "false"),
    st.integers().map(str),
    st.sampled_from(
        ["nan", "inf", "1e400", "0.5", "2020-01-01", "07:00:00", '""', '"x"', '"1h"', '"h:1"', '"\\u0000"']
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(["id", "name", "roles", "a b"]), inner, max_size=3).map(
            lambda table: "{" + ", ".join(f'"{key}" = {value}' for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=8,
)


def lines_of_problems(text: str) -> list[str]:
    try:
        parse(text)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@given(st.dictionaries(st.sampled_from(sorted(keys_of(Config()))), VALUES, max_size=6))
def test_whatever_a_key_holds_only_config_error_rises(values: dict[str, str]) -> None:
    found = lines_of_problems("\n".join(f"{key} = {value}" for key, value in values.items()))
    assert all(line.isprintable() for line in found)


@given(st.text())
def test_whatever_a_file_contains_only_config_error_rises(text: str) -> None:
    lines_of_problems(text)


def test_the_data_directory_is_the_files_then_systemds_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/eva")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert data_directory(Config()) == Path("/home/eva/.local/state/heliosd")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert data_directory(Config()) == Path("/state/heliosd")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/heliosd:/var/lib/other")
    assert data_directory(Config()) == Path("/var/lib/heliosd")
    assert data_directory(parse('[node]\ndata_dir = "/d"')) == Path("/d")


def test_the_data_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    ensure_data_directory(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o755)
    ensure_data_directory(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot use the data directory"):
            ensure_data_directory(path)


ALERT = '[[alert]]\nname = "a"\nwhen = "leader_lost"\nurl = "http://h/"\n'


def test_the_mistakes_in_alerts_are_reported_at_once_with_their_lines() -> None:
    text = f"""{ALERT}
        [[alert]]
        name = "a"
        when = "leader_gone"
        for = "soon"
        [[alert]]
        name = "b"
        url = "ftp://h/"
        command = ["page"]
        secret_file = "s"
        colour = "red"
        [[alert]]
        name = "c"
        when = "peer_removed"
        command = "page"
        secret_file = "s"
    """
    with pytest.raises(ConfigError) as caught:
        parse(text)
    found = {problem.key: (problem.line, problem.message) for problem in caught.value.problems}
    lines = text.splitlines()
    assert {key: line and lines[line - 1].split()[0] for key, (line, _) in found.items()} == {
        "alert[1].name": "name",
        "alert[1].when": "when",
        "alert[1].for": "for",
        "alert[1].url": "[[alert]]",
        "alert[2].when": "[[alert]]",
        "alert[2].url": "url",
        "alert[2].command": "command",
        "alert[2].colour": "colour",
        "alert[3].command": "command",
        "alert[3].url": "[[alert]]",
        "alert[3].secret_file": "secret_file",
    }
    assert "quorum_at_risk" in found["alert[1].when"][1]


@pytest.mark.parametrize(
    ("text", "metric", "above", "shown"),
    [
        ("metric:jobs>5", "jobs", 5.0, "metric:jobs>5"),
        ("metric:jobs > -1.5e3", "jobs", -1500.0, "metric:jobs>-1500"),
        ("metric:a:b>0.1", "a:b", 0.1, "metric:a:b>0.1"),
    ],
)
def test_an_alert_on_a_metric_names_it_and_a_limit(text: str, metric: str, above: float, shown: str) -> None:
    (alert,) = parse(ALERT.replace("leader_lost", text)).alert
    assert (alert.when.metric, alert.when.above, str(alert.when)) == (metric, above, shown)
    (again,) = parse(ALERT.replace("leader_lost", str(alert.when))).alert
    assert again == alert


@pytest.mark.parametrize(
    "text",
    [
        "metric:jobs",
        "metric:jobs>",
        "metric:jobs>nan",
        "metric:jobs>inf",
        "metric:5>1",
        "metric:a<1",
        "leader",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    assert set(problems(ALERT.replace("leader_lost", text))) == {"alert[0].when"}
