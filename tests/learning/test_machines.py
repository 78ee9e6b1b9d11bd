"""The machines that are committed are those of the code, and what must hold on every path through them does."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sshproto.wire.table import Role
from tests.learning.machine import COMMAND, Machine, as_hypothesis, differences
from tests.learning.properties import PROPERTIES, Property, check, oracles, rekeys
from tests.learning.subjects import SUBJECTS
from tests.support import peers

ROLES = pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)


@pytest.fixture(scope="module")
def machines() -> dict[Role, Machine]:
    return {role: Machine.committed(role) for role in Role}


@pytest.fixture
def aalpy() -> Any:
    return peers.need_module("aalpy", "learn")


# ---------------------------------------------------------------------------------------------------- whose they are


@ROLES
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.covers("R162", "P3", "P4", "P15", "P16", "P17", "P18")
def test_the_machine_is_that_of_the_code(role, machines, aalpy):
    """Every word in every state, and then what tells the state from all others: the Wp-method."""
    from tests.learning.oracle import Systematic
    from tests.learning.teacher import Teacher

    machine = machines[role]
    assert set(machine.steps[machine.start]) == set(SUBJECTS[role].words), f"other words: {COMMAND}"
    teacher = Teacher(role)
    found = Systematic(teacher, 0).find_cex(as_hypothesis(machine))
    if found is None:
        return
    teacher.pre()
    answer = [teacher.step(word) for word in found][-1]
    pytest.fail(
        f"{' '.join(found)}: {answer!r}, was {machine.run(found)[0][-1]!r} in docs/machines/{role.value}.dot; "
        f"if this is how it should be, renew the machines and review what has changed: {COMMAND}",
        pytrace=False,
    )


SMALL = {
    Role.SERVER: """
        VERSION KEXINIT KEX30 NEWKEYS IGNORE SERVICE_REQUEST PASSWORD PASSWORD_WRONG CHANNEL_OPEN CHANNEL_CLOSE
    """,
    Role.CLIENT: """
        VERSION KEXINIT KEX31 APP_TRUST NEWKEYS IGNORE SERVICE_ACCEPT APP_PASSWORD USERAUTH_SUCCESS USERAUTH_FAILURE
    """,
}


@ROLES
def test_a_part_of_it_is_learnt_from_nothing(role, machines, aalpy):
    from tests.learning.learn import learn

    words = SMALL[role].split()
    learnt, teacher = learn(role, 1, 0, words)
    assert differences(machines[role].restricted(words), learnt) == []
    assert len(learnt.situations) > 10
    assert teacher.runs


@ROLES
def test_it_is_written_as_it_is_read(role, machines):
    machine = machines[role]
    assert machine.to_dot() == machine.path.read_text()
    assert differences(machine, machine) == []
    assert {"identification", "key exchange", "authentication", "connection", "closed"} <= set(
        machine.situations.values()
    )


def test_another_machine_is_told(machines):
    machine = machines[Role.SERVER]
    other = changed(machine, "VERSION KEXINIT", "IGNORE", ".", "VERSION KEXINIT")
    assert differences(machine, other) == [
        "VERSION KEXINIT IGNORE: was DISCONNECT 2 [!ProtocolViolation], is .",
    ]


@pytest.mark.covers("P16")
@ROLES
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_who_counts_packets_otherwise_is_not_understood(role, strict):
    """The learner counts by itself: from 0 again if the exchange is strict, and on if it is not. Here it errs."""
    begin = "KEXINIT" if strict else "KEXINIT_NOT_STRICT"
    words = ["VERSION", begin, *(["KEX30"] if role is Role.SERVER else ["KEX31", "APP_TRUST"])]
    follows = "SERVICE_REQUEST" if role is Role.SERVER else "SERVICE_ACCEPT"
    for errs in (False, True):
        subject = SUBJECTS[role]()
        for word in words:
            subject.step(word)
        assert subject.peer.strict is strict
        subject.peer.strict = strict is not errs
        assert "[KeysExchanged]" in subject.step("NEWKEYS")
        assert (subject.step(follows) == "DISCONNECT 5 [!MacError]") is errs


# ------------------------------------------------------------------------------------------------------- what must hold

CASES = [
    pytest.param(prop, role, marks=pytest.mark.covers(prop.claim), id=f"{prop.claim} {role.value}: {prop.words}")
    for prop in PROPERTIES
    for role in Role
    if role in prop.roles
]


@pytest.mark.parametrize(("prop", "role"), CASES)
def test_it_holds_on_every_path(prop: Property, role: Role, machines):
    assert not check(machines[role], prop)


@ROLES
@pytest.mark.covers("P5", "P6", "P20", "R42")
def test_a_rekey_works_in_every_state_and_changes_nothing(role, machines):
    for situation in ("authentication", "connection"):
        assert list(rekeys(machines[role], situation)) == []


@pytest.mark.covers("P19", "V60", "R59")
def test_names_that_do_not_exist_are_answered_alike(machines):
    assert list(oracles(machines[Role.SERVER])) == []


# ------------------------------------------------------------------------------------------------------- and can fail


def changed(machine: Machine, way: str, word: str, answer: str, to: str) -> Machine:
    """The machine with one answer changed, and where it leads."""
    state = machine.run(way.split())[1]
    steps = {name: dict(words) for name, words in machine.steps.items()}
    steps[state][word] = answer, machine.run(to.split())[1]
    return attrs.evolve(machine, steps=steps)


KEYS = "VERSION KEXINIT KEX30 NEWKEYS"
LOGIN = f"{KEYS} SERVICE_REQUEST"
OPEN = f"{LOGIN} PASSWORD"
CLIENT_KEYS = "VERSION KEXINIT KEX31 APP_TRUST NEWKEYS"
CLIENT_OPEN = f"{CLIENT_KEYS} SERVICE_ACCEPT APP_NONE USERAUTH_SUCCESS"
FAULTS = (
    ("P1", Role.SERVER, "DISCONNECT", "PING", "PONG", "DISCONNECT"),
    ("P3", Role.SERVER, "VERSION KEXINIT KEX30", "SERVICE_REQUEST", "SERVICE_ACCEPT", LOGIN),
    ("P3", Role.SERVER, "VERSION KEXINIT", "SERVICE_REQUEST", "SERVICE_ACCEPT", LOGIN),
    ("P4", Role.SERVER, LOGIN, "NONE", "USERAUTH_SUCCESS [NoneAuth Authenticated]", OPEN),
    ("P4", Role.SERVER, LOGIN, "USERAUTH_SUCCESS", ".", OPEN),
    ("P4", Role.SERVER, KEYS, "CHANNEL_OPEN", "CHANNEL_OPEN_CONFIRMATION", KEYS),
    ("P7", Role.CLIENT, "VERSION", "GARBAGE", "DISCONNECT 2 PONG [!ProtocolViolation]", "DISCONNECT"),
    ("P8", Role.SERVER, f"{OPEN} APP_REKEY", "PING", "PONG", f"{OPEN} APP_REKEY"),
    ("P8", Role.CLIENT, f"{CLIENT_OPEN} APP_REKEY", "APP_REKEY", "KEXINIT", f"{CLIENT_OPEN} APP_REKEY"),
    ("P9", Role.SERVER, LOGIN, "SERVICE_REQUEST", ".", LOGIN),
    ("P10", Role.SERVER, LOGIN, "PASSWORD_WRONG", ".", LOGIN),
    ("P11", Role.SERVER, OPEN, "PASSWORD", "USERAUTH_SUCCESS [PasswordAuth Authenticated]", OPEN),
    ("P12", Role.SERVER, OPEN, "PASSWORD_WRONG", "USERAUTH_FAILURE", OPEN),
    ("P13", Role.SERVER, f"{OPEN} CHANNEL_OPEN", "CHANNEL_CLOSE", "[ChannelClosed]", OPEN),
    ("P13", Role.SERVER, f"{OPEN} CHANNEL_OPEN APP_CLOSE", "CHANNEL_CLOSE", "CHANNEL_CLOSE [ChannelClosed]", OPEN),
    ("P14", Role.SERVER, "VERSION IGNORE", "KEXINIT", ".", "VERSION KEXINIT"),
    ("P14", Role.CLIENT, "VERSION IGNORE", "KEXINIT", "KEX30", "VERSION KEXINIT"),
    ("P15", Role.SERVER, "VERSION KEXINIT", "IGNORE", ".", "VERSION KEXINIT"),
    ("P15", Role.SERVER, "VERSION KEXINIT KEX30", "UNKNOWN_15", "UNIMPLEMENTED", "VERSION KEXINIT KEX30"),
    ("P15", Role.CLIENT, "VERSION KEXINIT", "DEBUG", "[DebugReceived]", "VERSION KEXINIT"),
    ("P17", Role.SERVER, OPEN, "PING", "PONG PONG", OPEN),
    ("P17", Role.CLIENT, CLIENT_OPEN, "IGNORE", "REQUEST_FAILURE", CLIENT_OPEN),
    ("P18", Role.CLIENT, "VERSION KEXINIT KEX31", "APP_PASSWORD", "USERAUTH_REQUEST", "VERSION KEXINIT KEX31"),
    ("P18", Role.CLIENT, "VERSION KEXINIT KEX31_BAD", "APP_TRUST", "NEWKEYS SERVICE_REQUEST", CLIENT_KEYS),
    ("P18", Role.CLIENT, CLIENT_KEYS, "USERAUTH_FAILURE", "[CredentialNeeded]", f"{CLIENT_KEYS} SERVICE_ACCEPT"),
    (
        "V09",
        Role.CLIENT,
        f"{CLIENT_KEYS} SERVICE_ACCEPT APP_QUERY",
        "USERAUTH_SUCCESS",
        "[AuthSucceeded]",
        CLIENT_OPEN,
    ),
    (
        "V09",
        Role.CLIENT,
        f"{CLIENT_KEYS} SERVICE_ACCEPT APP_NONE",
        "USERAUTH_SUCCESS",
        "[AuthSucceeded]",
        CLIENT_OPEN,
    ),
)


@pytest.mark.parametrize(
    ("claim", "role", "way", "word", "answer", "to"), FAULTS, ids=[f"{f[0]}-{f[1].value}-{f[3]}" for f in FAULTS]
)
def test_a_machine_that_breaks_it_is_found(claim, role, way, word, answer, to, machines):
    broken = changed(machines[role], way, word, answer, to)
    assert any(check(broken, prop) for prop in PROPERTIES if prop.claim == claim and role in prop.roles)


def test_a_rekey_that_forgets_is_found(machines):
    machine = machines[Role.SERVER]
    opened = f"{OPEN} CHANNEL_OPEN"
    broken = changed(machine, f"{opened} KEXINIT KEX30", "NEWKEYS", "[KeysExchanged]", OPEN)
    assert list(rekeys(broken, "connection"))
    broken = changed(machine, opened, "KEXINIT", "DISCONNECT 2 [!ProtocolViolation]", "DISCONNECT")
    assert list(rekeys(broken, "connection"))


def test_an_oracle_for_names_is_found(machines):
    assert list(oracles(changed(machines[Role.SERVER], LOGIN, "PASSWORD_STRANGER", "DISCONNECT 2", "DISCONNECT")))
