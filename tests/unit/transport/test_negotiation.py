"""Negotiation: the truth table, the guess, the pseudo names, the policy."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import algorithms
from sshproto.config import Limits, Preferences
from sshproto.errors import DisconnectCode, Incompatible, KeyExchangeFailed, LimitExceeded
from sshproto.transport.negotiation import (
    PSEUDO,
    Negotiated,
    check_offer,
    guess_is_right,
    negotiate,
    offer,
    strict_agreed,
)
from sshproto.transport.suites import CIPHERS
from sshproto.wire.messages import KexInit
from sshproto.wire.table import Role

COOKIE = bytes(range(16))
AEAD = {"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"}
SLOTS = {
    "kex": "kex_algorithms",
    "host key": "server_host_key_algorithms",
    "cipher client to server": "encryption_algorithms_client_to_server",
    "cipher server to client": "encryption_algorithms_server_to_client",
    "mac client to server": "mac_algorithms_client_to_server",
    "mac server to client": "mac_algorithms_server_to_client",
    "compression client to server": "compression_algorithms_client_to_server",
    "compression server to client": "compression_algorithms_server_to_client",
}


def init(**fields: tuple[str, ...] | bool | int) -> KexInit:
    values: dict[str, object] = {
        "kex_algorithms": ("k",),
        "server_host_key_algorithms": ("h",),
        "encryption_algorithms_client_to_server": ("aes128-ctr",),
        "encryption_algorithms_server_to_client": ("aes128-ctr",),
        "mac_algorithms_client_to_server": ("m",),
        "mac_algorithms_server_to_client": ("m",),
        "compression_algorithms_client_to_server": ("none",),
        "compression_algorithms_server_to_client": ("none",),
    }
    return KexInit(cookie=COOKIE, **{**values, **fields})  # type: ignore[arg-type]


def observe(client: KexInit, server: KexInit, strict: bool = False) -> Negotiated:
    return negotiate(client, server, us=Role.CLIENT, preferences=None, strict=strict)


# ------------------------------------------------------------------------------------------------------ the truth table


def reference(client: KexInit, server: KexInit) -> dict[str, str | None] | str:
    """RFC 4253 section 7.1, read aloud: quadratic and slot by slot. The name of the first failing slot, if one does."""
    chosen: dict[str, str | None] = {}
    pseudo = ["ext-info-c", "ext-info-s", "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"]
    pseudo += ["kex-strict-c", "kex-strict-s"]
    order = ["kex", "host key"]
    for way in ("client to server", "server to client"):
        order += [f"cipher {way}", f"mac {way}", f"compression {way}"]
    for category in order:
        kind, _, way = category.partition(" ")
        if kind == "mac" and chosen[f"cipher {way}"] in AEAD:
            chosen[category] = None
            continue
        found = None
        for name in getattr(client, SLOTS[category]):
            if found is None and name not in pseudo:
                for other in getattr(server, SLOTS[category]):
                    if name == other:
                        found = name
        if found is None:
            return category
        chosen[category] = found
    return chosen


def some(*names: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), max_size=4).map(tuple)


def some_init() -> st.SearchStrategy[KexInit]:
    return st.builds(
        KexInit,
        cookie=st.just(COOKIE),
        kex_algorithms=some("a", "b", "c", *sorted(PSEUDO)),
        server_host_key_algorithms=some("a", "b", "c"),
        encryption_algorithms_client_to_server=some("aes128-ctr", "x", *sorted(AEAD)),
        encryption_algorithms_server_to_client=some("aes128-ctr", "x", *sorted(AEAD)),
        mac_algorithms_client_to_server=some("a", "b", "c"),
        mac_algorithms_server_to_client=some("a", "b", "c"),
        compression_algorithms_client_to_server=some("none", "zlib"),
        compression_algorithms_server_to_client=some("none", "zlib"),
        languages_client_to_server=some("en", "de"),
        first_kex_packet_follows=st.booleans(),
        reserved=st.integers(0, 2**32 - 1),
    )


@pytest.mark.covers("R30", "R35", "R36")
@settings(max_examples=400, deadline=None)
@given(some_init(), some_init(), st.booleans())
def test_agrees_with_the_reference(client: KexInit, server: KexInit, strict: bool) -> None:
    expected = reference(client, server)
    if isinstance(expected, str):
        with pytest.raises(Incompatible) as caught:
            observe(client, server, strict)
        assert caught.value.category == expected
        return
    found = observe(client, server, strict)
    assert found.strict_kex is strict
    assert expected == {
        "kex": found.kex,
        "host key": found.host_key,
        "cipher client to server": found.cipher_client_to_server,
        "cipher server to client": found.cipher_server_to_client,
        "mac client to server": found.mac_client_to_server,
        "mac server to client": found.mac_server_to_client,
        "compression client to server": found.compression_client_to_server,
        "compression server to client": found.compression_server_to_client,
    }


@pytest.mark.covers("R30")
def test_the_clients_order_decides() -> None:
    assert observe(init(kex_algorithms=("a", "b")), init(kex_algorithms=("b", "a"))).kex == "a"
    assert observe(init(kex_algorithms=("b", "a")), init(kex_algorithms=("a", "b"))).kex == "b"


@pytest.mark.covers("R24", "R27")
def test_directions_are_independent() -> None:
    both = ("aes128-ctr", "aes256-ctr")
    client = init(
        encryption_algorithms_client_to_server=both, encryption_algorithms_server_to_client=tuple(reversed(both))
    )
    server = init(encryption_algorithms_client_to_server=both, encryption_algorithms_server_to_client=both)
    found = observe(client, server)
    assert (found.cipher_client_to_server, found.cipher_server_to_client) == both


@pytest.mark.covers("R31")
@pytest.mark.parametrize("category", SLOTS)
@pytest.mark.parametrize("us", Role)
def test_nothing_in_common(category: str, us: Role) -> None:
    client, server = init(**{SLOTS[category]: ("mine", "more")}), init(**{SLOTS[category]: ()})
    with pytest.raises(Incompatible) as caught:
        negotiate(client, server, us=us, preferences=None, strict=True)
    error = caught.value
    assert error.category == category
    assert error.code == DisconnectCode.KEY_EXCHANGE_FAILED
    lists = (("mine", "more"), ())
    assert (error.ours, error.theirs) == (lists if us is Role.CLIENT else lists[::-1])


@pytest.mark.covers("R142")
@pytest.mark.parametrize("cipher", sorted(AEAD))
def test_an_aead_cipher_needs_no_mac(cipher: str) -> None:
    client = init(encryption_algorithms_client_to_server=(cipher,), mac_algorithms_client_to_server=("m",))
    server = init(encryption_algorithms_client_to_server=(cipher,), mac_algorithms_client_to_server=("other",))
    found = observe(client, server)
    assert found.mac_client_to_server is None
    assert found.mac_server_to_client == "m"


def test_these_are_the_aead_ciphers() -> None:
    assert {name for name, spec in CIPHERS.items() if spec.aead} == AEAD


@pytest.mark.covers("R127", "V03")
@pytest.mark.parametrize("name", sorted(PSEUDO))
def test_pseudo_names_never_match(name: str) -> None:
    with pytest.raises(Incompatible) as caught:
        observe(init(kex_algorithms=(name, "a")), init(kex_algorithms=(name, "b")))
    assert (caught.value.ours, caught.value.theirs) == (("a",), ("b",))
    assert observe(init(kex_algorithms=(name, "a")), init(kex_algorithms=("a", name))).kex == "a"


@pytest.mark.covers("V37")
def test_long_lists_are_cheap() -> None:
    client = init(kex_algorithms=tuple(f"c{i}" for i in range(50_000)))
    server = init(kex_algorithms=tuple(f"s{i}" for i in range(50_000)))
    with pytest.raises(Incompatible):
        observe(client, server)  # quadratic, this would take minutes


# ------------------------------------------------------------------------------------------------------------ the guess


@pytest.mark.covers("R32", "V15")
@pytest.mark.parametrize("same_kex", [True, False])
@pytest.mark.parametrize("same_host_key", [True, False])
def test_the_guess(same_kex: bool, same_host_key: bool) -> None:
    client = init(kex_algorithms=("a", "b"), server_host_key_algorithms=("h", "i"))
    server = init(
        kex_algorithms=("a", "c") if same_kex else ("b", "a"),
        server_host_key_algorithms=("h",) if same_host_key else ("i", "h"),
    )
    assert guess_is_right(client, server) is (same_kex and same_host_key)
    assert guess_is_right(server, client) is (same_kex and same_host_key)


@pytest.mark.covers("R32", "V15")
def test_pseudo_names_are_no_guess() -> None:
    client = init(kex_algorithms=("ext-info-c", "kex-strict-c-v00@openssh.com", "a"))
    server = init(kex_algorithms=("kex-strict-s-v00@openssh.com", "a", "ext-info-s"))
    assert guess_is_right(client, server)


@pytest.mark.covers("R32")
def test_no_names_no_guess() -> None:
    empty = init(kex_algorithms=("ext-info-c",))
    assert not guess_is_right(empty, empty)
    assert not guess_is_right(init(server_host_key_algorithms=()), init(server_host_key_algorithms=()))


# ------------------------------------------------------------------------------------------------------ strict exchange

STRICT_C, STRICT_S = "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"


@pytest.mark.covers("V03", "R145")
@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [
        ((STRICT_C,), (STRICT_S,), True),
        ((STRICT_C,), (), False),
        ((), (STRICT_S,), False),
        ((STRICT_S,), (STRICT_C,), False),  # the wrong role's
        ((STRICT_C,), (STRICT_C,), False),
        (("kex-strict-c",), ("kex-strict-s",), True),
        ((STRICT_C,), ("kex-strict-s",), False),  # neither sees what it looks for
        (("kex-strict-c", STRICT_C), ("kex-strict-s", STRICT_S), True),
    ],
)
def test_strict_agreed(client: tuple[str, ...], server: tuple[str, ...], expected: bool) -> None:
    assert strict_agreed(init(kex_algorithms=("a", *client)), init(kex_algorithms=("a", *server))) is expected


# ------------------------------------------------------------------------------------------------------------ our offer


@pytest.mark.covers("R29", "R125")
def test_the_first_offer() -> None:
    preferences = Preferences()
    made = offer(preferences, Role.CLIENT, cookie=COOKIE, host_key_algorithms=("ssh-ed25519",), first=True)
    assert made.cookie == COOKIE
    assert made.kex_algorithms == (*preferences.kex, "ext-info-c", STRICT_C)
    assert made.server_host_key_algorithms == ("ssh-ed25519",)
    assert made.encryption_algorithms_server_to_client == preferences.cipher
    assert made.mac_algorithms_server_to_client == preferences.mac
    assert made.compression_algorithms_server_to_client == preferences.compression
    assert (made.languages_client_to_server, made.languages_server_to_client) == ((), ())
    assert not made.first_kex_packet_follows
    assert made.reserved == 0
    assert KexInit.parse(made.encode()) == made
    server = offer(preferences, Role.SERVER, cookie=COOKIE, host_key_algorithms=("ssh-ed25519",), first=True)
    assert server.kex_algorithms == (*preferences.kex, "ext-info-s", STRICT_S)
    check_offer(server, Limits())


@pytest.mark.covers("R125")
@pytest.mark.parametrize("role", Role)
def test_later_offers_have_no_pseudo_names(role: Role) -> None:
    made = offer(Preferences(), role, cookie=COOKIE, host_key_algorithms=("ssh-ed25519",), first=False)
    assert not PSEUDO & set(made.kex_algorithms)


@pytest.mark.parametrize("role", Role)
def test_strict_can_be_left_out(role: Role) -> None:
    preferences = Preferences(strict_kex=False)
    made = offer(preferences, role, cookie=COOKIE, host_key_algorithms=("ssh-ed25519",), first=True)
    assert made.kex_algorithms == (*preferences.kex, f"ext-info-{role.value[0]}")


@pytest.mark.covers("R23", "R24", "R27")
def test_two_directions() -> None:
    preferences = Preferences(
        cipher=("aes128-ctr",),
        cipher_server_to_client=("aes256-ctr",),
        mac_server_to_client=("hmac-sha2-512",),
        compression_server_to_client=("none",),
    )
    made = offer(preferences, Role.CLIENT, cookie=COOKIE, host_key_algorithms=("ssh-ed25519",), first=True)
    assert made.encryption_algorithms_client_to_server == ("aes128-ctr",)
    assert made.encryption_algorithms_server_to_client == ("aes256-ctr",)
    assert made.mac_algorithms_client_to_server == algorithms.MAC_DEFAULT
    assert made.mac_algorithms_server_to_client == ("hmac-sha2-512",)
    assert made.compression_algorithms_server_to_client == ("none",)


# ------------------------------------------------------------------------------------------------------ sizes of theirs

FIELDS = [field.name for field in attrs.fields(KexInit) if field.name.endswith(("_client", "_server", "_algorithms"))]


@pytest.mark.covers("B8", "V37")
@pytest.mark.parametrize("field", FIELDS)
def test_offer_limits(field: str) -> None:
    assert len(FIELDS) == 10
    limits = Limits(names=4, name_list=44)
    check_offer(init(**{field: ("a" * 8, "b" * 11, "c" * 11, "d" * 11)}), limits)  # 41 letters and 3 commas
    check_offer(init(**{field: ("a" * 44,)}), limits)
    check_offer(init(**{field: ()}), limits)
    for names, limit in (
        (("a", "b", "c", "d", "e"), "names"),
        (("a" * 9, "b" * 11, "c" * 11, "d" * 11), "name_list"),
        (("a" * 45,), "name_list"),
    ):
        with pytest.raises(LimitExceeded) as caught:
            check_offer(init(**{field: names}), limits)
        assert caught.value.limit == limit
        assert caught.value.code == DisconnectCode.KEY_EXCHANGE_FAILED
        assert field in str(caught.value)


@pytest.mark.covers("R6", "V37")
def test_names_have_at_most_64_characters() -> None:
    check_offer(init(kex_algorithms=("a" * 64,)), Limits())
    with pytest.raises(KeyExchangeFailed) as caught:
        check_offer(init(kex_algorithms=("a\x1b" * 32 + "a",)), Limits())
    assert caught.value.code == DisconnectCode.KEY_EXCHANGE_FAILED
    assert "\x1b" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- policy


def outcome(way: str, cipher: str, mac: str, preferences: Preferences | None, strict: bool) -> Negotiated:
    both = init(**{f"encryption_algorithms_{way}": (cipher,), f"mac_algorithms_{way}": (mac,)})
    return negotiate(both, both, us=Role.SERVER, preferences=preferences, strict=strict)


PRONE = [
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-cbc", "hmac-sha2-256-etm@openssh.com"),
    ("3des-cbc", "hmac-sha1-96-etm@openssh.com"),
]


@pytest.mark.covers("V01", "R145")
@pytest.mark.parametrize("way", ["client_to_server", "server_to_client"])
@pytest.mark.parametrize(("cipher", "mac"), PRONE)
def test_terrapin_is_refused(way: str, cipher: str, mac: str) -> None:
    with pytest.raises(KeyExchangeFailed, match=r"Terrapin.*allow_terrapin"):
        outcome(way, cipher, mac, Preferences(), strict=False)
    outcome(way, cipher, mac, Preferences(), strict=True)
    outcome(way, cipher, mac, Preferences(allow_terrapin=True), strict=False)
    outcome(way, cipher, mac, None, strict=False)


@pytest.mark.covers("V01")
@pytest.mark.parametrize(
    ("cipher", "mac"),
    [
        ("aes128-gcm@openssh.com", "hmac-sha2-256-etm@openssh.com"),
        ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
        ("aes128-cbc", "hmac-sha2-256"),
    ],
)
def test_the_rest_is_safe_without_strict(cipher: str, mac: str) -> None:
    outcome("client_to_server", cipher, mac, Preferences(), strict=False)
