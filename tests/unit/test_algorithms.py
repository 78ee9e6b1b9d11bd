"""The names of algorithms.py are those that are implemented, and the defaults are sound."""

from __future__ import annotations

import itertools
import re

import pytest

from sshproto import algorithms
from sshproto.config import Preferences
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS
from sshproto.keys.signatures import SIGNATURES
from sshproto.transport.compression import COMPRESSIONS
from sshproto.transport.kex import METHODS
from sshproto.transport.macs import MACS
from sshproto.transport.suites import CIPHERS

REGISTRIES = {
    "kex": METHODS,
    "signature": SIGNATURES,
    "certificate": CERTIFICATE_ALGORITHMS,
    "cipher": CIPHERS,
    "mac": MACS,
    "compression": COMPRESSIONS,
}
LISTS = {name: value for name, value in vars(algorithms).items() if name.isupper() and isinstance(value, tuple)}


@pytest.mark.parametrize("category", REGISTRIES)
def test_what_is_named_is_implemented_and_what_is_implemented_is_named(category: str) -> None:
    assert set(REGISTRIES[category]) == algorithms.KNOWN[category]


@pytest.mark.parametrize("category", REGISTRIES)
def test_every_entry_of_a_registry_knows_its_own_name(category: str) -> None:
    assert {name: entry.name for name, entry in REGISTRIES[category].items()} == {
        name: name for name in REGISTRIES[category]
    }


@pytest.mark.parametrize("category", REGISTRIES)
def test_every_name_has_one_standing(category: str) -> None:
    lists = [value for name, value in LISTS.items() if name.startswith(category.upper() + "_")]
    assert len(lists) >= 2
    together = list(itertools.chain(*lists))
    assert len(together) == len(set(together))
    assert set(together) == algorithms.KNOWN[category]


def test_there_are_no_other_categories() -> None:
    assert set(algorithms.KNOWN) == set(REGISTRIES)
    assert {name.partition("_")[0].lower() for name in LISTS} == set(REGISTRIES)
    assert {name.partition("_")[2] for name in LISTS} <= {"DEFAULT", "EXTRA", "LEGACY"}


@pytest.mark.covers("R6")
@pytest.mark.parametrize("name", sorted(itertools.chain(*algorithms.KNOWN.values())))
def test_every_name_is_a_name(name: str) -> None:
    """RFC 4251 section 6: printable US-ASCII, no comma or space, at most 64 characters, at most one @."""
    assert re.fullmatch(r"[!-+\--~]{1,64}", name)
    assert name.count("@") <= 1


def test_preferences_offer_the_defaults() -> None:
    preferences = Preferences()
    assert preferences.kex == algorithms.KEX_DEFAULT
    assert preferences.host_key == preferences.signature == algorithms.SIGNATURE_DEFAULT
    assert preferences.cipher == algorithms.CIPHER_DEFAULT
    assert preferences.mac == algorithms.MAC_DEFAULT
    assert preferences.compression == algorithms.COMPRESSION_DEFAULT


@pytest.mark.covers("V50", "R141")
def test_weak_algorithms_are_not_offered_unasked() -> None:
    """SHA-1, MD5, CBC, 3DES, groups under 2048 bits: only for who names them."""
    offered = [name for value in vars(algorithms) if value.endswith(("_DEFAULT", "_EXTRA")) for name in LISTS[value]]
    weak = re.compile(r"sha1|md5|cbc|3des|group1-|-96|^ssh-rsa(-cert|$)")
    assert not [name for name in offered if weak.search(name)]
    assert all(weak.search(name) for value in LISTS if value.endswith("_LEGACY") for name in LISTS[value])


@pytest.mark.covers("R13")
@pytest.mark.covers("V50", "R140")
def test_what_must_not_be_there_is_not_there() -> None:
    """RFC 8758, RFC 9142: not even by name."""
    names = set(itertools.chain(*algorithms.KNOWN.values()))
    assert "none" not in algorithms.KNOWN["cipher"] | algorithms.KNOWN["mac"]
    assert not [name for name in names if re.search(r"arcfour|blowfish|cast|ssh-dss|rsa1024|umac|^des", name)]
    assert not [name for name in names if name.startswith(("ext-info-", "kex-strict-"))]  # never negotiable


@pytest.mark.covers("R141", "R122")
def test_what_every_peer_has_is_there() -> None:
    """RFC 9142's MUST and SHOULD."""
    assert {
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "curve25519-sha256",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
    } <= set(algorithms.KEX_DEFAULT)
    assert {"ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256"} <= set(algorithms.SIGNATURE_DEFAULT)
    assert "aes128-ctr" in algorithms.CIPHER_DEFAULT
    assert "hmac-sha2-256" in algorithms.MAC_DEFAULT
    assert algorithms.COMPRESSION_DEFAULT[0] == "none"
    assert "zlib" not in algorithms.COMPRESSION_DEFAULT  # runs before login
