"""What is different between two connections, what is not though the bytes are, and in which order it is told."""

from __future__ import annotations

import json

import attrs
import pytest

from sshproto.auth import methods
from sshproto.channels.requests import DirectTcpip, Env, Exec, ExitStatus, Session
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.replay import difference as room
from sshproto.replay import portrait as portraits
from sshproto.replay.difference import Portrait, compare
from sshproto.replay.events import KeysMissing, Observed, PacketSealed, Reopened, Side
from sshproto.replay.portrait import Step
from sshproto.replay.secrets import Secrets
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.replay.sessions import Scribe, observe, split
from tests.support.pair import HOST_KEY
from tests.support.rogue import IDENT, kexinit
from tests.support.tapes import Show, command, shell

CLIENT, SERVER = Side.DIALLER, Side.DIALLED


def portrait(show, *, opened=True):
    found = Portrait()
    for seen in observe(show.recording.wire, show.recording.secrets if opened else Secrets()):
        found.add(seen)
    return found


def look(wire):
    found = Portrait()
    for seen in observe(wire):
        found.add(seen)
    return found


def words(comparison):
    return [each.words for each in comparison.differences]


# ------------------------------------------------------------------------------------------------------- what is none


def test_chance_is_no_difference():
    found = compare(portrait(shell()), portrait(shell()))
    assert (found.differences, found.notes) == ((), ())


def test_what_comes_when_somebody_likes_is_no_difference():
    one, other = Show(), Show()
    for _ in range(3):
        other.client.ping(b"are you there")
        other.run()
    for show in (one, other):
        show.ask(show.open(), Exec(b"ls"))
    assert words(compare(portrait(one), portrait(other))) == []


def test_who_dialled_from_where_is_no_difference():
    one, other = Show(), Show()
    one.open(DirectTcpip("db", 5432, "10.0.0.1", 4000))
    other.open(DirectTcpip("db", 5432, "10.0.0.7", 4711))
    assert words(compare(portrait(one), portrait(other))) == []
    third = Show()
    third.open(DirectTcpip("db", 80))
    assert words(compare(portrait(one), portrait(third))) == [
        "the client's CHANNEL_OPEN direct-tcpip, port: A 5432; B 80"
    ]


def test_data_is_no_difference():
    one, other = Show(), Show()
    for show, text in ((one, b"x"), (other, b"yyyy")):
        channel = show.open()
        show.ask(channel, Exec(b"cat"))
        for _ in range(len(text)):
            show.type(channel, text).print(channel, text, 1)
        show.exit(channel).bye()
    assert words(compare(portrait(one), portrait(other))) == []


def test_numbers_of_channels_are_no_difference_alone():
    one, other = Show(), Show()
    other.exit(other.open())
    for show in (one, other):
        show.ask(show.open(), Exec(b"ls"))
        show.bye()
    assert {(each.what, each.lone) for each in compare(portrait(one), portrait(other)).differences} == {
        ("CHANNEL_OPEN session", True),
        ("CHANNEL_OPEN_CONFIRMATION", True),
        ("CHANNEL_REQUEST exit-status", True),
        ("CHANNEL_EOF", True),
    }


def test_a_connection_and_itself():
    one = portrait(command(), opened=False)
    found = compare(one, one)
    assert (found.differences, found.relayed) == ((), False)


# -------------------------------------------------------------------------------------------------- what is different


def test_another_command():
    found = compare(portrait(command(b"make")), portrait(command(b"make test")))
    assert words(found) == ["the client's CHANNEL_REQUEST exec, command: A make; B make test"]
    [difference] = found.differences
    assert difference.stage == "messages"
    assert difference.frames_a == difference.frames_b != ()
    assert difference.as_dict() == {
        "stage": "messages",
        "role": "client",
        "what": "CHANNEL_REQUEST exec, command",
        "a": "make",
        "b": "make test",
        "frames_a": difference.frames_a,
        "frames_b": difference.frames_b,
        "lone": False,
    }
    assert json.loads(json.dumps(difference.as_dict()))


def test_another_ending():
    one, other = Show(), Show()
    for show, status in ((one, 0), (other, 1)):
        show.exit(show.open(), ExitStatus(status))
    one.bye()
    assert words(compare(portrait(one), portrait(other))) == [
        "the server's CHANNEL_REQUEST exit-status, status: A 0; B 1",
        "the client's DISCONNECT: only in A (reason by application (11), description bye)",
    ]


def test_other_lists_and_what_comes_of_them():
    narrow = Preferences(cipher=("aes128-ctr",), mac=("hmac-sha2-256",))
    config = ClientConfig(user="alice", preferences=narrow, debug_raise=True)
    found = compare(portrait(command()), portrait(command(client=config)))
    stages = [each.stage for each in found.differences]
    assert stages == sorted(stages, key=room.STAGES.index)
    first = found.differences[0]
    assert (first.stage, first.role, first.what) == ("offer", Role.CLIENT, "KEXINIT, cipher, client to server")
    assert first.words.startswith("the client's KEXINIT, cipher, client to server: only A has ")
    assert first.b == ("aes128-ctr",)
    chosen = {each.what: each.b for each in found.differences if each.stage == "negotiation"}
    assert chosen["negotiated cipher client to server"] == "aes128-ctr"
    assert chosen["negotiated mac server to client"] == "hmac-sha2-256"
    assert "messages" not in stages


def test_the_same_names_in_another_order():
    names = ("aes128-ctr", "aes256-ctr")
    shows = [
        command(client=ClientConfig(user="alice", preferences=Preferences(cipher=order), debug_raise=True))
        for order in (names, names[::-1])
    ]
    assert words(compare(*map(portrait, shows)))[0] == (
        "the client's KEXINIT, cipher, client to server: in another order:"
        " A aes128-ctr, aes256-ctr; B aes256-ctr, aes128-ctr"
    )


def test_a_list_with_more_and_in_another_order():
    a, b = ("x", "one", "two"), ("two", "one")
    assert room._contrast(a, b) == "only A has x; the rest in another order"
    assert room._contrast(("one",), ("one", "y")) == "only B has y"


def test_another_user_and_another_host_key():
    from sshproto.keys.private import PrivateKey

    key = PrivateKey.generate("ssh-ed25519")
    one = command()
    other = command(
        client=ClientConfig(user="bob", debug_raise=True), server=ServerConfig(host_keys=(key,), debug_raise=True)
    )
    found = words(compare(portrait(one), portrait(other)))
    assert found[0] == (
        f"the server's host key: A ssh-ed25519 {HOST_KEY.public_key.fingerprint()};"
        f" B ssh-ed25519 {key.public_key.fingerprint()}"
    )
    assert "the client's USERAUTH_REQUEST publickey, bound to the host, signed, user: A alice; B bob" in found


@pytest.mark.parametrize("form", [methods.Password("hunter2"), methods.PasswordChange("hunter2", "hunter2")])
def test_passwords_are_not_shown(form):
    name, details = portraits._login(m.UserauthRequest("alice", "ssh-connection", "password", form.encode()))
    assert name == "password"
    assert details == [("user", "alice"), ("service", "ssh-connection")]


def test_a_message_at_another_place():
    one, other = Show(), Show()
    for show, turned in ((one, False), (other, True)):
        channel = show.open()
        requests = [Env("A", b"1"), Exec(b"ls")]
        show.ask(channel, *(requests[::-1] if turned else requests))
    found = words(compare(portrait(one), portrait(other)))
    assert found in (
        ["the client's CHANNEL_REQUEST env, its place: A after CHANNEL_OPEN session; B after CHANNEL_REQUEST exec"],
        ["the client's CHANNEL_REQUEST exec, its place: A after CHANNEL_REQUEST env; B after CHANNEL_OPEN session"],
    )


def test_both_sides_in_the_order_of_time():
    """Who was refused differs first in the refusal, not in what only the other did after it."""
    refused, accepted = portrait(Show()), portrait(command())
    for role in Role:
        steps = refused.side(role).opened
        steps[:] = [step for step in steps if not step.name.startswith(("CHANNEL", "DISCONNECT"))]
    last = refused.side(Role.SERVER).opened[-1]
    refused.side(Role.SERVER).opened[-1] = attrs.evolve(last, name="USERAUTH_FAILURE")
    found = words(compare(refused, accepted))
    assert found[:3] == [
        "the server's USERAUTH_FAILURE: only in A",
        "the server's USERAUTH_SUCCESS: only in B",
        "the client's CHANNEL_OPEN session: only in B (channel 0)",
    ]


def test_what_only_the_other_has_stands_before_what_follows_it():
    one, other = Show(), Show()
    one.ask(one.open(), Exec(b"a"))
    other.ask(other.open(), Env("X", b"1"), Env("Y", b"2"), Env("Z", b"3"), Exec(b"b"))
    found = [each.what for each in compare(portrait(one), portrait(other)).differences]
    assert found.index("CHANNEL_REQUEST exec, command") == 3
    assert found[:3] == ["CHANNEL_REQUEST env"] * 3


def test_time_in_b_is_counted_from_what_both_have():
    a, b = Portrait(), Portrait()
    a.side(Role.CLIENT).opened[:] = [Step("S", place=1)]
    a.side(Role.SERVER).opened[:] = [Step("T", place=2), Step("X", place=3), Step("Z", place=9)]
    b.side(Role.CLIENT).opened[:] = [Step("S", place=11), Step("P", place=14)]
    b.side(Role.SERVER).opened[:] = [Step("T", place=12), Step("Y", place=13)]
    assert [each.what for each in compare(a, b).differences] == ["X", "Y", "P", "Z"]


# -------------------------------------------------------------------------------------------------- without the keys


def test_late_keys_take_the_place_of_what_was_sealed():
    found = Portrait()
    for event in (
        KeysMissing(epoch=1, exact=True, problem="no key"),
        PacketSealed(offset=0, size=100, exact=True),
        Reopened(epoch=1),
        KeysMissing(epoch=2, exact=True, problem="no key"),
        PacketSealed(offset=0, size=200, exact=True),
    ):
        found.add(Observed(side=CLIENT, time=None, frames=(), event=event))
    assert [step.size for step in found.side(Role.CLIENT).sealed] == [200]
    assert found.sealed


def test_without_keys():
    one, other = portrait(command(b"make"), opened=False), portrait(command(b"make test"), opened=False)
    one.cookies.clear()  # what is random here comes from the same seed
    found = compare(one, other)
    assert found.differences == ()
    assert found.notes == ("neither could be opened: what came encrypted was not compared",)
    half = compare(portrait(command(b"make")), portrait(command(b"make test"), opened=False))
    assert half.differences == ()
    assert half.notes == ("only A could be opened: what came encrypted was not compared",)


def test_no_connection_at_all():
    assert compare(Portrait(), Portrait()).differences == ()
    found = compare(portrait(command()), Portrait())
    assert found.differences[0].words.endswith("; B none")
    assert "negotiation" in [each.stage for each in found.differences]


# ---------------------------------------------------------------------------------------------- somebody in the middle


def legs(*, insert=b"", delete=False):
    """A connection as its two ends see it: something is put in before the server's NEWKEYS, and what comes behind it
    is cut off."""
    wire = command().recording.wire
    _, packets = split(wire, SERVER)
    end = packets[-1][0] + packets[-1][1]
    changed, count = [], 0
    for side, data in wire:
        count += len(data) * (side is SERVER)
        if side is SERVER and count - len(data) < end <= count:  # the piece with NEWKEYS
            behind = b"" if delete else data[len(data) - (count - end) :]
            data = Scribe(SERVER).send(insert).piece[1] + data[: len(data) - (count - end)] + behind
        changed.append((side, data))
    return wire, changed


def test_what_was_put_in():
    wire, changed = legs(insert=m.Ignore(b"").encode())
    found = compare(look(changed), look(wire))
    assert found.relayed
    assert "the server's IGNORE: only in A" in words(found)
    [difference] = [each for each in found.differences if each.what == "IGNORE"]
    assert difference.stage == "key exchange"


def test_what_was_cut_off():
    wire, changed = legs(insert=m.Ignore(b"").encode(), delete=True)
    found = compare(look(changed), look(wire))
    encrypted = [each for each in found.differences if each.stage == "encrypted"]
    assert [(each.role, each.lone, each.a) for each in encrypted] == [(Role.SERVER, True, None)]
    assert "sizes" in found.notes[0]


def test_the_same_bytes_cut_elsewhere_are_no_difference():
    config = ClientConfig(user="alice", preferences=Preferences(cipher=("chacha20-poly1305@openssh.com",)))
    wire = command(client=config).recording.wire
    pieces = [(side, part) for side, data in wire for part in ((data[:20], data[20:]) if len(data) < 60 else (data,))]
    found = compare(look(wire), look([(side, part) for side, part in pieces if part]))
    assert words(found) == []
    assert found.notes[1] == "these are sizes of what came at once, which need not be one packet"


def test_first_differences_of_an_exchange():
    def exchange(**options):
        client, server = Scribe(CLIENT, IDENT.rstrip()), Scribe(SERVER, IDENT.rstrip())
        return [client.send(kexinit(**options)).piece, server.send(kexinit()).piece]

    plain, guess = look(exchange()), look(exchange(first_kex_packet_follows=True))
    assert "the client's KEXINIT, guess that follows: A no; B yes" in words(compare(plain, guess))


def test_so_many_messages_are_compared(monkeypatch):
    monkeypatch.setattr(portraits, "STEPS", 5)
    found = compare(portrait(command()), portrait(command()))
    assert found.notes == ("of each side the first 5 messages were compared",)


@pytest.mark.parametrize("value", [None, True, False, (), ("a",), "", 7])
def test_values_have_words(value):
    assert room._shown(value)


def test_sessions_of_no_kind():
    show = Show()
    show.open(Session())
    assert words(compare(portrait(show), portrait(show))) == []
