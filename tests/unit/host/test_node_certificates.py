"""The gateway's certificate: made, kept while it serves, made anew when it does not."""

import datetime as dt
import os
import ssl

import pytest
from cryptography import x509

from trivet.host.certificates import SERVER_DAYS, ensure_certificates

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
NAMES, ADDRESSES = ["localhost", "node-1"], ["127.0.0.1", "::1", "10.0.0.5"]


@pytest.fixture
def folder(tmp_path):
    assert ensure_certificates(tmp_path, NAMES, ADDRESSES, os.geteuid(), NOW)
    return tmp_path


def test_clients_that_trust_the_authority_can_use_it(folder):
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    assert len(context.get_ca_certs()) == 1
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        folder / "server.pem", folder / "server.key"
    )
    server = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ADDRESSES


def test_keys_are_for_their_owner_alone(folder):
    for name in ("ca.key", "server.key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert (folder / "ca.pem").stat().st_mode & 0o777 == 0o644


def test_what_serves_is_kept(folder):
    before = (folder / "server.pem").read_bytes()
    assert not ensure_certificates(folder, NAMES[:1], ADDRESSES[:2], os.geteuid(), NOW)
    assert (folder / "server.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "days"), [(["192.0.2.9"], 0), ([], SERVER_DAYS - 29), ([], SERVER_DAYS + 1)]
)
def test_a_new_address_or_a_near_end_makes_a_new_one_of_the_same_authority(folder, more, days):
    authority = (folder / "ca.pem").read_bytes()
    later = NOW + dt.timedelta(days=days)
    assert ensure_certificates(folder, NAMES, [*ADDRESSES, *more], os.geteuid(), later)
    assert (folder / "ca.pem").read_bytes() == authority


def test_half_of_a_pair_is_made_anew(folder):
    (folder / "server.key").unlink()
    assert ensure_certificates(folder, NAMES, ADDRESSES, os.geteuid(), NOW)
