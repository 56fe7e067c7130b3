"""The cluster's certificate authority, and the certificate by which a node proves who it is.

The gateway shows it, and in a cluster the bus, to clients and to the other nodes' servers. Clients
trust the authority, so a node's certificate can be made anew (new addresses, near its end)
without telling them. A certificate that still covers the wanted names for a month is kept.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trivet.host.whole_files import write_secret, write_whole

CA_DAYS = 3650
SERVER_DAYS = 365
RENEW_BEFORE_DAYS = 30
USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""Servers of the bus are each other's clients."""


def ensure_certificates(
    folder: Path, names: Sequence[str], addresses: Sequence[str], owner: int, now: dt.datetime
) -> bool:
    """See to ca.pem, ca.key, server.pem and server.key in `folder`; whether any was made.

    `owner` is the user id that may read server.key. `now` is UTC.
    """
    made = ensure_authority(folder, now)
    return ensure_issued(folder, folder, names, addresses, owner, now, anew=made)


def ensure_authority(folder: Path, now: dt.datetime) -> bool:
    """See to ca.pem and ca.key in `folder`; whether they were made."""
    _make_folder(folder)
    if (folder / "ca.key").exists() and (folder / "ca.pem").exists():
        return False
    _make_authority(folder, now)
    return True


def ensure_issued(
    authority: Path,
    folder: Path,
    names: Sequence[str],
    addresses: Sequence[str],
    owner: int,
    now: dt.datetime,
    *,
    anew: bool = False,
) -> bool:
    """See to a node's certificate in `folder`, from the authority in the folder `authority`,
    with the authority's own beside it; whether it was made."""
    _make_folder(folder)
    if folder != authority:
        write_whole(folder / "ca.pem", (authority / "ca.pem").read_bytes(), 0o644)
    made = anew or not _covers(folder / "server.pem", names, addresses, now)
    if made:
        _make_server(authority, folder, names, addresses, now)
    os.chown(folder / "server.key", owner, -1)
    return made


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.chmod(0o711)


def _make_authority(folder: Path, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Trivet cluster authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder, "ca", key, certificate)


def _make_server(
    issuer: Path, folder: Path, names: Sequence[str], addresses: Sequence[str], now: dt.datetime
) -> None:
    authority = x509.load_pem_x509_certificate((issuer / "ca.pem").read_bytes())
    authority_key = serialization.load_pem_private_key((issuer / "ca.key").read_bytes(), None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{issuer / 'ca.key'} is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(subject, authority.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(USES), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(folder, "server", key, certificate)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _write(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(folder / f"{name}.key", private)
    write_secret(folder / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.pem").chmod(0o644)


def _covers(path: Path, names: Sequence[str], addresses: Sequence[str], now: dt.datetime) -> bool:
    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    has_names = set(extension.value.get_values_for_type(x509.DNSName))
    has_addresses = {str(a) for a in extension.value.get_values_for_type(x509.IPAddress)}
    lasts = certificate.not_valid_after_utc > now + dt.timedelta(days=RENEW_BEFORE_DAYS)
    return lasts and has_names >= set(names) and has_addresses >= set(addresses)
