"""A certificate authority and what it signs, for tests of TLS between heliosd and etcd."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .certificates import write_pair


@dataclass(frozen=True)
class EtcdCertificates:
    """PEM files: an authority, etcd's own certificate for 127.0.0.1, and those of two clients."""

    ca_cert: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    """Without a common name: with authentication on, etcd's JSON gateway refuses a client that shows one."""
    client_key: Path
    named_cert: Path
    """As `client_cert`, with a common name."""
    named_key: Path
    stranger_ca: Path
    stranger_cert: Path
    """A client certificate by an authority that etcd does not know."""
    stranger_key: Path
    expired_cert: Path
    """By the right authority, but its time is over."""
    expired_key: Path

    @classmethod
    def make(cls, folder: Path) -> EtcdCertificates:
        ours, theirs = _Authority(folder, "ca"), _Authority(folder, "stranger-ca")
        server, named = ours.sign("server", ends_in_hours=1), ours.sign("named", ends_in_hours=1)
        client = ours.sign("client", ends_in_hours=1, named=False)
        stranger = theirs.sign("stranger", ends_in_hours=1)
        expired = ours.sign("expired", ends_in_hours=-1)
        return cls(ours.cert, *server, *client, *named, theirs.cert, *stranger, *expired)


class _Authority:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        certificate = (
            self._begun(self._name, self._key, ends_in_hours=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, *, ends_in_hours: int, named: bool = True) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._begun(_named(name) if named else x509.Name([]), key, ends_in_hours)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return write_pair(self._folder, f"{name}.pem", certificate, f"{name}.key", key)

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, ends_in_hours: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=2))
            .not_valid_after(now + datetime.timedelta(hours=ends_in_hours))
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
