"""Key logs, session keys, private values: what is read, what is refused, what is found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sshproto.config import Preferences
from sshproto.replay.events import KeysMissing, PacketOpened, SecretFound, Side
from sshproto.replay.methods import OBSERVED, Unfit, agree
from sshproto.replay.secrets import (
    PRIVATE_KEY,
    SHARED_SECRET,
    DerivedKeys,
    KeyLogError,
    KeyLogLine,
    Secrets,
    parse_key_log,
    parse_session_keys,
)
from sshproto.transport.kex import METHODS, client_exchange, server_exchange
from sshproto.transport.kex.ecdh import CURVE25519, NISTP256, NISTP384, NISTP521
from sshproto.wire.messages import (
    KexDhGexGroup,
    KexDhGexInit,
    KexDhGexReply,
    KexDhGexRequest,
    KexDhInit,
    KexDhReply,
    KexEcdhInit,
    KexEcdhReply,
    Message,
)
from sshproto.wire.table import Role
from tests.replay.sessions import observe, session, told, troubles
from tests.support.pair import seeded

COOKIE = "000102030405060708090a0b0c0d0e0f"
BYTES = bytes(range(16))


# ------------------------------------------------------------------------------------------------------------- key logs


def test_a_key_log() -> None:
    text = f"""# a comment

    {COOKIE} SHARED_SECRET 0102
{COOKIE.upper()}\tPRIVATE_KEY   AbCd
{COOKIE} ff
"""
    lines = [
        KeyLogLine(BYTES, SHARED_SECRET, b"\1\2"),
        KeyLogLine(BYTES, PRIVATE_KEY, b"\xab\xcd"),
        KeyLogLine(BYTES, PRIVATE_KEY, b"\xff"),
    ]
    assert list(parse_key_log(text)) == lines
    assert list(parse_key_log(text.replace("\n", "\r\n").encode())) == lines
    assert list(parse_key_log(text.encode() + bytes(3))) == lines  # as a Decryption Secrets Block is filled up
    for encoding in ("utf-8-sig", "utf-16"):  # as editors and shells of Windows write
        assert list(parse_key_log(text.encode(encoding))) == lines
    secrets = Secrets()
    assert secrets.add_key_log(text) == 3
    assert len(secrets) == 2
    assert repr(secrets) == "<Secrets, 1 shared, 1 private, 0 derived>"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("one", "has 1 fields"),
        (f"{COOKIE} SHARED_SECRET 01 02", "has 4 fields"),
        (f"{COOKIE} MASTER_SECRET 01", "is of the kind 'MASTER_SECRET'"),
        (f"{COOKIE} {'5a' * 32} host.example", "is of the kind 64 hexadecimal digits, expected SHARED"),
        (f"{COOKIE[2:]} SHARED_SECRET 01", "has a cookie of 30 hexadecimal digits"),
        (f"{COOKIE} SHARED_SECRET 012", "is not hexadecimal"),
        (f"{COOKIE[:-2]}zz SHARED_SECRET 01", "is not hexadecimal"),
        (f"{COOKIE} {'00' * 9000}", "has a value of 18000 hexadecimal digits"),
        ("\ufffd", "has 1 fields"),
    ],
)
def test_what_is_no_key_log(line: str, problem: str) -> None:
    secrets = Secrets()
    with pytest.raises(KeyLogError, match=f"key log, line 2: {problem}") as caught:
        secrets.add_key_log(f"{COOKIE} SHARED_SECRET 01\n{line}\n{line}\n{COOKIE} PRIVATE_KEY 01\n")
    assert (caught.value.line, caught.value.taken) == (2, 2)
    assert len(secrets) == 2  # all others are taken


def test_values_of_one_cookie() -> None:
    """Logs may disagree: all of them are tried, but not without end."""
    secrets = Secrets()
    for number in range(20):
        secrets.add(KeyLogLine(BYTES, SHARED_SECRET, bytes((number,))))
        secrets.add(KeyLogLine(BYTES, SHARED_SECRET, bytes((number,))))
    found = list(secrets.candidates(BYTES, b"", OBSERVED["curve25519-sha256"], ()))
    assert [value for _, value in found] == [bytes((number,)) for number in range(12, 20)]


def test_secrets_are_not_shown() -> None:
    secret = b"do not show"
    keys = DerivedKeys(key=secret, iv=secret, mac_key=secret)
    line = KeyLogLine(BYTES, SHARED_SECRET, secret)
    secrets = Secrets(lambda *_: secret)
    secrets.add(line)
    secrets.add_derived(keys)
    for value in (keys, line, secrets):
        assert "do not" not in repr(value) + str(value)
        assert secret.hex() not in repr(value)


# --------------------------------------------------------------------------------------------------------- session keys

ENTRY = {
    "client_cookie": COOKIE,
    "server_cookie": COOKIE[::-1],
    "session_id": "aa",
    "H": "bb",
    "K_encoded": "000000020102",
    "cipher_cs": "aes128-ctr",
    "key_cs": "01",
    "iv_cs": "02",
    "mackey_cs": "03",
    "key_sc": "04",
    "anything": [1],
}
COOKIES = frozenset((BYTES, bytes.fromhex(COOKIE[::-1])))
DERIVED = [
    DerivedKeys(
        key=b"\1", iv=b"\2", mac_key=b"\3", cipher="aes128-ctr", cookies=COOKIES, sender=Role.CLIENT,
        session_id=b"\xaa", exchange_hash=b"\xbb",
    ),
    DerivedKeys(key=b"\4", cookies=COOKIES, sender=Role.SERVER, session_id=b"\xaa", exchange_hash=b"\xbb"),
]  # fmt: skip


def test_session_keys() -> None:
    for text in (json.dumps([ENTRY]), json.dumps(ENTRY), json.dumps(ENTRY) + "\n\n" + json.dumps(ENTRY)):
        found = list(parse_session_keys(text.encode()))
        assert found == list(parse_session_keys(text))
        assert {it.cookie for it in found if isinstance(it, KeyLogLine)} == COOKIES
        assert {it.value for it in found if isinstance(it, KeyLogLine)} == {b"\1\2"}
        assert [it for it in found if isinstance(it, DerivedKeys)][:2] == DERIVED
    secrets = Secrets()
    assert secrets.add_session_keys(json.dumps(ENTRY)) == 4
    assert repr(secrets) == "<Secrets, 2 shared, 0 private, 2 derived>"
    secrets.add_session_keys(json.dumps(ENTRY))
    assert len(secrets) == len(secrets.copy()) == 4
    for cookies in ((BYTES, b""), (b"", BYTES), tuple(COOKIES)):
        assert list(secrets.derived(cookies, "aes128-ctr", Role.CLIENT)) == DERIVED[:1]
        assert list(secrets.derived(cookies, "aes128-cbc", Role.CLIENT)) == []
        assert list(secrets.derived(cookies, "aes128-cbc", Role.SERVER)) == DERIVED[1:]


def test_keys_from_memory() -> None:
    entry = {
        "task_name": "sshd",
        "sshenc_addr": "0x1",
        "cipher_name": "aes256-gcm@openssh.com",
        "key": "01",
        "iv": "02",
    }
    text = "\n".join(json.dumps(it) for it in (entry, {**entry, "iv": None}, {"key": "03"}))
    keys = [
        DerivedKeys(key=b"\1", iv=b"\2", cipher="aes256-gcm@openssh.com"),
        DerivedKeys(key=b"\1", cipher="aes256-gcm@openssh.com"),
        DerivedKeys(key=b"\3"),
    ]
    assert list(parse_session_keys(text)) == keys
    secrets = Secrets()
    assert secrets.add_session_keys(text) == 3
    assert list(secrets.derived((BYTES,), "aes256-gcm@openssh.com", Role.CLIENT)) == keys
    assert list(secrets.derived((BYTES,), "aes128-ctr", Role.CLIENT)) == keys[2:]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "session keys, line 1: is not JSON"),
        ('{"key": "01"}\n{', "session keys, line 2: is not JSON"),
        ("[" * 100_000, "session keys, line 1: is not JSON"),
        ('[{"key": "01"}, 5]', "session keys, entry 2: is a int, expected an object"),
        ('[{"key": "0"}]', "entry 1: key is not hexadecimal"),
        ('[{"key": 5}]', "entry 1: key is a int, expected a string"),
        ('[{"key": "01", "cipher_name": [5]}]', "entry 1: cipher_name is a list, expected a string"),
        ("[{}]", "entry 1: has neither a cookie nor a key"),
        (json.dumps({"key": "00" * 9000}), "entry 1: key has 18000 hexadecimal digits"),
    ],
)
def test_what_are_no_session_keys(text: str, problem: str) -> None:
    with pytest.raises(KeyLogError, match=problem):
        list(parse_session_keys(text))


# ------------------------------------------------------------------------------------------------------ private values


SIZES = {"nistp256": NISTP256, "nistp384": NISTP384, "nistp521": NISTP521}
DH = [name for name, method in OBSERVED.items() if method.group is not None and name in METHODS]
GEX = [name for name in METHODS if "exchange" in name]
ECDH = [name for name in METHODS if name.startswith(("curve", "ecdh"))]
HYBRID = [name for name in METHODS if name.startswith("mlkem")]


def normal(kex: str, drawn: list[bytes]) -> bytes:
    """A private value as a key log has it, from what was drawn for it."""
    value = drawn[-1]
    if kex in DH or kex in GEX:
        return (int.from_bytes(value, "big") | 1 << 511).to_bytes(64, "big")
    for name, curve in SIZES.items():
        if name in kex:
            return (int.from_bytes(value, "big") % (curve.order - 1) + 1).to_bytes(curve.size, "big")
    return value


def run(kex: str) -> tuple[list[Message], bytes, dict[str, bytes], list[bytes]]:
    """Transcript, secret as a key log has it, private values, and what was encapsulated."""
    drawn: dict[str, list[bytes]] = {"client": [], "server": []}
    encapsulated: list[bytes] = []

    def entropy(side: str) -> Any:
        source = seeded(side)

        def draw(count: int, label: str) -> bytes:
            drawn[side].append(source(count, label))
            return drawn[side][-1]

        return draw

    def oracle(label: str, compute: Any) -> bytes:
        encapsulated.append(compute())
        return encapsulated[-1]

    client = client_exchange(METHODS[kex], entropy=entropy("client"), oracle=oracle, gex_bits=(2048, 2048, 8192))
    server = server_exchange(METHODS[kex], entropy=entropy("server"), oracle=oracle, host_key=b"key")
    message: Message | None = client.start()
    while message is not None:
        answer = server.receive(message)
        assert answer is not None
        message = client.receive(answer)
    assert client.secret == server.secret
    secret = client.secret[4:].lstrip(b"\0") if kex not in HYBRID else client.secret[4:]
    values = {side: normal(kex, values) for side, values in drawn.items()}
    if kex in HYBRID:
        values["client"] = drawn["client"][0] + values["client"]
        values["server"] = encapsulated[0][:32] + values["server"]
    return list(client.transcript), secret, values, encapsulated


@pytest.mark.parametrize("kex", DH + GEX + ECDH + HYBRID)
def test_private_values_of_either_side(kex: str) -> None:
    transcript, secret, values, _ = run(kex)
    method = OBSERVED[kex]
    for value in values.values():
        assert agree(method, value, transcript).lstrip(b"\0") == secret.lstrip(b"\0")
        assert method.encode(agree(method, value, transcript)) == method.encode(secret)
        wrong = value[:-9] + bytes((value[-9] ^ 1,)) + value[-8:]
        with pytest.raises(Unfit, match="belong"):
            agree(method, wrong, transcript)


@pytest.mark.parametrize("kex", HYBRID)
def test_half_of_a_hybrid(kex: str) -> None:
    """What key logs of others have for hybrids is the classical half. That can't suffice, and is said to be that."""
    transcript, _, values, _ = run(kex)
    size = METHODS[kex].curve.size  # type: ignore[attr-defined]
    for value in values.values():
        with pytest.raises(Unfit, match=r"is the private value of .* alone"):
            agree(OBSERVED[kex], value[-size:], transcript)
    with pytest.raises(Unfit, match="neither side's public value belongs to it"):
        agree(OBSERVED[kex], bytes((7,)) * size, transcript)
    with pytest.raises(Unfit):
        agree(OBSERVED[kex], b"short", transcript)
    seed = values["client"]
    with pytest.raises(Unfit, match="public key does not belong to it"):
        agree(OBSERVED[kex], bytes((seed[0] ^ 1,)) + seed[1:], transcript)


def test_values_that_fit_nothing() -> None:
    curve = [KexEcdhInit(bytes(32)), KexEcdhReply(b"", bytes(32), b"")]
    with pytest.raises(Unfit, match="it has 5 bytes"):
        agree(OBSERVED["curve25519-sha256"], b"12345", curve)
    with pytest.raises(Unfit, match="not understood here"):
        agree(OBSERVED["sntrup761x25519-sha512@openssh.com"], bytes(32), curve)
    with pytest.raises(Unfit, match="C_INIT has 32 bytes"):
        agree(OBSERVED["mlkem768x25519-sha256"], bytes(32), curve)
    for private in (b"", b"\0", b"\1" * 1000):
        with pytest.raises(Unfit, match="it has"):
            agree(OBSERVED["diffie-hellman-group14-sha1"], private, [KexDhInit(2), KexDhReply(b"", 3, b"")])
    for prime in (0, -7, 4, 1 << 9000):
        group = [KexDhGexRequest(1, 2, 3), KexDhGexGroup(prime, 2), KexDhGexInit(2), KexDhGexReply(b"", 3, b"")]
        with pytest.raises(Unfit):
            agree(OBSERVED["diffie-hellman-group-exchange-sha1"], b"\3", group)


def test_small_orders() -> None:
    """A peer's value that leads nowhere is no reason to fail otherwise."""
    private = bytes(range(32))
    ephemeral = CURVE25519.restore(private)
    assert ephemeral is not None
    with pytest.raises(Unfit, match="small order"):
        agree(OBSERVED["curve25519-sha256"], private, [KexEcdhInit(ephemeral.share), KexEcdhReply(b"", bytes(32), b"")])


@pytest.mark.parametrize("kex", ["curve25519-sha256", "diffie-hellman-group14-sha256", "mlkem768x25519-sha256"])
@pytest.mark.parametrize("side", list(Side))
def test_sessions_open_by_private_values(kex: str, side: Side) -> None:
    recording = session(preferences=Preferences(kex=(kex,)), rekeys="c")
    drawn, lines = recording.drawn_for(side, "kex"), []
    per_round = len(drawn) // 2
    for number, cookie in enumerate(recording.drawn_for(side, "cookie")):
        mine = drawn[number * per_round : (number + 1) * per_round]
        value = normal(kex, mine)
        if kex in HYBRID and side is Side.DIALLER:
            value = mine[0] + value
        lines.append(f"{cookie.hex()} {value.hex()}")
    secrets = Secrets()
    secrets.add_key_log("\n".join(lines))
    events = observe(recording.wire, secrets)
    if kex in HYBRID and side is Side.DIALLED:  # the server's half alone
        assert "is the private value of X25519 alone" in troubles(events)[0]
        assert len(troubles(events)) == 1
        assert len(told(events, KeysMissing)) == 2
        return
    assert troubles(events) == []
    assert [(it.source, it.verified) for it in told(events, SecretFound)] == [("private value", True)] * 2
    assert {it.epoch for it in told(events, PacketOpened)} == {0, 1, 2}


def test_the_function_is_asked_last() -> None:
    asked: list[bytes] = []

    def ask(client: bytes, server: bytes) -> bytes | None:
        asked.append(client)
        return b"\5"

    secrets = Secrets(ask)
    secrets.add(KeyLogLine(BYTES, SHARED_SECRET, b"\1"))
    secrets.add(KeyLogLine(b"other", SHARED_SECRET, b"\2"))
    secrets.add(KeyLogLine(b"other", SHARED_SECRET, b"\1"))
    problems: list[str] = []
    secrets.add(KeyLogLine(BYTES, PRIVATE_KEY, b"\3"))
    transcript = [KexEcdhInit(bytes(32)), KexEcdhReply(b"", bytes(32), b"")]
    found = secrets.candidates(BYTES, b"other", OBSERVED["curve25519-sha256"], transcript, problems.append)
    assert [next(found), next(found)] == [("shared secret", b"\1"), ("shared secret", b"\2")]
    assert not asked
    assert list(found) == [("shared secret", b"\5")]
    assert asked == [BYTES]
    assert problems == ["it has 1 bytes: that is no private value of X25519"]
