"""What must hold on every path through a machine, as a table; checked by searching the graph, not by running anything.

A property watches a path with a memory of its own: a function of the memory, the state in which a word is said, the
word and the answer, that gives the next memory, or a complaint.  The search goes through all pairs of state and memory,
so that it has seen every path, however long.  The names P1 to P20 are those of :mod:`tests.support.claims`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Any

import attrs

from sshproto.wire.table import Role
from tests.learning.machine import Machine
from tests.learning.subjects import GUARD, SILENT

BOTH = frozenset(Role)
SERVER, CLIENT = frozenset({Role.SERVER}), frozenset({Role.CLIENT})


@attrs.frozen
class Step:
    """A word and what came of it.

    Attributes:
        word: What was said.
        sent: The messages that were sent; DISCONNECT without its code.
        told: The events.
        lost: The connection has ended with it.
        situation: Where the connection was.
        answer: All of it, as it is written.
    """

    word: str
    sent: tuple[str, ...]
    told: tuple[str, ...]
    lost: bool
    situation: str
    answer: str

    @property
    def guarded(self) -> bool:
        """Nothing was said."""
        return self.answer == GUARD or self.answer.startswith("raises ")

    @property
    def ours(self) -> bool:
        """It was the application's doing, not the peer's."""
        return self.word.startswith("APP")


@cache
def step(word: str, answer: str, situation: str) -> Step:
    if answer in {GUARD, SILENT} or answer.startswith("raises "):
        return Step(word, (), (), False, situation, answer)
    sent, _, told = answer.partition("[")
    events = tuple(told.rstrip("]").split())
    messages = tuple(re.sub(r" \d+", "", sent).split())
    return Step(word, messages, events, any(event.startswith("!") for event in events), situation, answer)


class Broken(Exception):
    """A property does not hold."""


Watch = Callable[[Any, Step], Hashable]


@attrs.frozen
class Property:
    """A property of paths.

    Attributes:
        claim: Its name.
        words: What it says.
        roles: Whom it is about.
        start: The memory at the beginning.
        watch: From memory and step to the next memory; raises :class:`Broken`.
    """

    claim: str
    words: str
    roles: frozenset[Role]
    start: Hashable
    watch: Watch


def check(machine: Machine, prop: Property) -> tuple[str, ...]:
    """A shortest path on which the property does not hold; empty if there is none."""
    first = (machine.start, prop.start)
    seen = {first}
    queue: deque[tuple[tuple[str, ...], str, Any]] = deque([((), *first)])
    while queue:
        path, state, memory = queue.popleft()
        for word, (answer, following) in machine.steps[state].items():
            try:
                after = prop.watch(memory, step(word, answer, machine.situations[state]))
            except Broken as complaint:
                return (*path, f"{word} / {answer}", str(complaint))
            if (following, after) not in seen:
                seen.add((following, after))
                queue.append(((*path, word), following, after))
    return ()


def need(condition: object, complaint: str) -> None:
    if not condition:
        raise Broken(complaint)


# ----------------------------------------------------------------------------------------------------------- properties


def _silence(over: bool, now: Step) -> bool:
    need(not over or now.answer == SILENT, "after the end")
    need(not now.lost or now.sent in {(), ("DISCONNECT",)} or now.sent[-1] == "DISCONNECT", "something after the end")
    return over or now.lost


SERVICE_CHAIN = ("KEXINIT", "KEX31", "NEWKEYS")


def _service(done: int, now: Step) -> int:
    """The server's own KEXINIT and reply are sent, and the client's NEWKEYS has come, one after the other."""
    if done == 0 and "KEXINIT" in now.sent:
        done = 1
    if done == 1 and "KEX31" in now.sent:
        done = 2
    if done == 2 and now.word == "NEWKEYS" and "KeysExchanged" in now.told:
        done = 3
    need("SERVICE_ACCEPT" not in now.sent or done == 3, "a service without keys")
    return done


PROOFS = {"PASSWORD", "SIGNED", "SIGNED_BOUND", "RESPONSE"}
OPENING = {"Authenticated", "ChannelOpenRequested", "ChannelRequested", "DataReceived", "GlobalRequested"}


def _login(opened: bool, now: Step) -> bool:
    if "Authenticated" in now.told or "USERAUTH_SUCCESS" in now.sent:
        need(now.word in PROOFS, "success without proof")
        need("Authenticated" in now.told and "USERAUTH_SUCCESS" in now.sent, "half a success")
        return True
    above = [word for word in now.sent if word.startswith(("CHANNEL", "REQUEST_", "PONG"))]
    need(opened or not (above or OPENING & set(now.told)), "channels without login")
    return opened


def _kexinit(busy: bool, now: Step) -> bool:
    for message in now.sent:
        if message == "KEXINIT":
            need(not busy, "a second KEXINIT")
            busy = True
        elif message == "NEWKEYS":
            need(busy, "NEWKEYS without KEXINIT")
            busy = False
        else:
            allowed = {"KEX30", "KEX31", "DISCONNECT", "IGNORE", "DEBUG", "UNIMPLEMENTED"}
            need(not busy or message in allowed, f"{message} in a key exchange")
    return busy


def _service_answer(over: bool, now: Step) -> bool:
    if now.word == "SERVICE_REQUEST" and not over:
        need(now.sent in {("SERVICE_ACCEPT",), ("DISCONNECT",)} or _early(now), "no answer")
    return over or now.lost


def _early(now: Step) -> bool:
    """The packet is no packet yet: identification lines are awaited."""
    return now.situation == "identification"


BAD_LOGINS = {
    *("NONE", "PASSWORD_WRONG", "PASSWORD_STRANGER", "QUERY_WRONG", "QUERY_STRANGER"),
    *("SIGNED_WRONG_SESSION", "SIGNED_WRONG_KEY", "SIGNED_BOUND_ELSEWHERE", "RESPONSE_WRONG"),
}


def _bad_login(memory: tuple[bool, bool], now: Step) -> tuple[bool, bool]:
    opened, over = memory
    if now.word in BAD_LOGINS and not (opened or over or now.guarded or _early(now)):
        need(now.sent in {("USERAUTH_FAILURE",), ("DISCONNECT",)}, "a bad login is no failure")
    return opened or "USERAUTH_SUCCESS" in now.sent, over or now.lost


def _once(done: bool, now: Step) -> bool:
    need(not done or "USERAUTH_SUCCESS" not in now.sent, "success twice")
    return done or "USERAUTH_SUCCESS" in now.sent


LOGINS = BAD_LOGINS | PROOFS | {"QUERY", "INTERACTIVE"}


def _after_success(memory: tuple[bool, bool], now: Step) -> tuple[bool, bool]:
    opened, over = memory
    if opened and not over and now.word in LOGINS and not now.guarded:
        need(now.sent in {(), ("DISCONNECT",)} and (now.lost or not now.told), "a login after success")
    return opened or "USERAUTH_SUCCESS" in now.sent, over or now.lost


def _close(memory: tuple[str, bool, bool], now: Step) -> tuple[str, bool, bool]:
    """How far the channel is (``held``: the peer has closed it, our answer waits); whether a CLOSE of ours waits for
    the end of a key exchange; whether the connection has ended."""
    state, held, over = memory
    if over or now.guarded:
        return memory
    closed = "CHANNEL_CLOSE" in now.sent
    need(now.sent.count("CHANNEL_CLOSE") <= 1, "CLOSE twice")
    after, due = state, False
    match now.word, state:
        case "APP_OPEN", _:
            after = "opening"
        case "APP_CLOSE", "opening":
            after = "doomed"
        case "APP_CLOSE", _:
            after, due = "closing", True
        case "CHANNEL_OPEN", _ if "ChannelOpenRequested" in now.told:
            after = "open"
        case "CHANNEL_OPEN_CONFIRMATION", "opening" if not now.lost:
            after = "open"
        case "CHANNEL_OPEN_CONFIRMATION", "doomed" if not now.lost:
            after, due = "closing", True
        case "CHANNEL_OPEN_FAILURE", _ if not now.lost:
            after = "none"
        case "CHANNEL_CLOSE", "open" if not now.lost:
            after, due = "none" if closed else "held", True
        case "CHANNEL_CLOSE", _ if not now.lost:
            need(state == "closing", "CLOSE was taken for no channel")
            after = "held" if held else "none"
        case _:
            pass
    need(due or not closed, "CLOSE without a reason")
    held = (held or due) and not closed
    if "NEWKEYS" in now.sent and held:
        need("..." in now.sent, "no CLOSE after the key exchange")
        after, held = ("none" if after == "held" else after), False
    return after, held, now.lost


def _strict_first(memory: tuple[str, bool], now: Step) -> tuple[str, bool]:
    state, over = memory
    if over or now.guarded or now.ours:
        return state, over or now.lost
    if state == "identification":
        return ("clean" if "VersionReceived" in now.told else state), now.lost
    if now.word.startswith("KEXINIT"):
        if now.word != "KEXINIT_NOT_STRICT" and state == "dirty":
            need(now.sent == ("DISCONNECT",), "KEXINIT was not the first packet")
        return "past" if state != "past" else state, now.lost
    return ("dirty" if state == "clean" else state), now.lost


NEXT = {Role.SERVER: {"KEX30", "KEX30_BAD"}, Role.CLIENT: {"KEX31", "KEX31_BAD"}}
METHOD_WORDS = {"KEX30", "KEX30_BAD", "KEX31", "KEX31_BAD"}


def _strict_only(role: Role) -> Watch:
    """After both strict KEXINITs nothing but what the exchange wants next, up to the peer's NEWKEYS."""

    def watch(memory: str, now: Step) -> str:
        if memory in {"over", "past"} or now.guarded or now.ours:
            return "over" if now.lost else memory
        if memory == "before":
            if now.lost:
                return "over"
            if now.word in {"KEXINIT", "KEXINIT_WRONG_GUESS"} and now.situation != "identification":
                return "method" if now.word == "KEXINIT" else "guess"
            return "past" if now.word == "KEXINIT_NOT_STRICT" and now.situation != "identification" else memory
        if now.word == "DISCONNECT":
            need(now.lost and not now.sent, "an answer to DISCONNECT")
            return "over"
        wanted = {"method": NEXT[role], "guess": METHOD_WORDS, "keys": {"NEWKEYS"}}[memory]
        if now.word not in wanted:
            need(now.sent == ("DISCONNECT",) and now.lost, f"{now.word} in a strict key exchange")
        if now.lost:
            return "over"
        return {"guess": "method", "method": "keys", "keys": "past"}[memory]

    return watch


ASKED_BY: dict[str, frozenset[str]] = {
    "SERVICE_ACCEPT": frozenset({"SERVICE_REQUEST"}),
    "USERAUTH_SUCCESS": frozenset(PROOFS),
    "USERAUTH_FAILURE": frozenset(LOGINS),
    "AUTH60": frozenset({"QUERY", "INTERACTIVE"}),
    "AUTH61": frozenset({"APP_ANSWER"}),
    "REQUEST_SUCCESS": frozenset({"GLOBAL_REQUEST"}),
    "REQUEST_FAILURE": frozenset({"GLOBAL_REQUEST"}),
    "CHANNEL_OPEN_CONFIRMATION": frozenset({"CHANNEL_OPEN"}),
    "CHANNEL_OPEN_FAILURE": frozenset({"CHANNEL_OPEN"}),
    "CHANNEL_SUCCESS": frozenset({"CHANNEL_REQUEST"}),
    "CHANNEL_FAILURE": frozenset({"CHANNEL_REQUEST"}),
    "PONG": frozenset({"PING"}),
    "CHANNEL_EOF": frozenset(),
}
"""Each reply, and what it can be the reply to. Those that a key exchange holds up are not told apart: ``...``."""


def _replies(memory: None, now: Step) -> None:
    for message, words in ASKED_BY.items():
        need(now.sent.count(message) <= (now.word in words), f"{message} to {now.word}")


CHAIN = ("KEX31", "APP_TRUST", "NEWKEYS", "SERVICE_ACCEPT")


def _credentials(done: int, now: Step) -> int:
    """A client: a good signature, the application's yes, the server's NEWKEYS, its service; only then a login."""
    if done < len(CHAIN) and now.word == CHAIN[done] and not now.guarded and not now.lost and now.answer != SILENT:
        done += 1
    logins = {"USERAUTH_REQUEST", "AUTH61"} & set(now.sent)
    need(not logins or done == len(CHAIN), "a login before all is proved")
    need("SERVICE_REQUEST" not in now.sent or done >= 3, "a service is asked for before the keys")
    return done


def _query_is_no_login(querying: bool, now: Step) -> bool:
    """USERAUTH_SUCCESS in answer to a key query is no success."""
    if querying and now.word == "USERAUTH_SUCCESS":
        need("AuthSucceeded" not in " ".join(now.told), "a query was taken for a login")
    if now.word == "APP_QUERY" and not now.guarded:
        return True
    answered = {"USERAUTH_PK_OK", "USERAUTH_FAILURE", "USERAUTH_FAILURE_PARTIAL"}
    return querying and not (now.word in answered and not now.lost)


def _trivial(proved: int, now: Step) -> int:
    """Whether a login without proof is called trivial: 0 nothing was proved, 1 a proof is on its way, 2 proved."""
    if now.word.startswith("APP_") and not now.guarded and ("USERAUTH_REQUEST" in now.sent or now.sent == ()):
        proofs = {"APP_PASSWORD": 1, "APP_SIGN": 1, "APP_NONE": 0, "APP_QUERY": 0, "APP_INTERACTIVE": 0}
        proved = max(proved, 2) if proved == 2 else proofs.get(now.word, proved)
    if now.word == "APP_ANSWER" and not now.guarded:
        proved = max(proved, 1)
    if now.word == "USERAUTH_PK_OK" and "USERAUTH_REQUEST" in now.sent:
        proved = max(proved, 1)
    if now.word == "USERAUTH_FAILURE_PARTIAL" and not now.lost and proved == 1:
        proved = 2
    elif now.word == "USERAUTH_FAILURE" and not now.lost and proved == 1:
        proved = 0
    if "AuthSucceeded" in now.told:
        need(proved, "a trivial login was called a real one")
    return proved


PROPERTIES: tuple[Property, ...] = (
    Property("P1", "after the end of the connection nothing is sent and nothing is told", BOTH, False, _silence),
    Property("P3", "a service is accepted only after a complete key exchange", SERVER, 0, _service),
    Property("P4", "channels open only after a login with a proof", SERVER, False, _login),
    Property("P7", "DISCONNECT is the last thing that is sent", BOTH, False, _silence),
    Property("P8", "between KEXINIT and NEWKEYS only the key exchange is sent", SERVER, False, _kexinit),
    # A client sends its first one as it is made, before anything is said to it.
    Property("P8", "between KEXINIT and NEWKEYS only the key exchange is sent", CLIENT, True, _kexinit),
    Property(
        "P9", "a request for the service is answered by its acceptance or by the end", SERVER, False, _service_answer
    ),
    Property("P10", "a bad login is a failure, or the end", SERVER, (False, False), _bad_login),
    Property("P11", "success comes once", SERVER, False, _once),
    Property("P12", "after success login requests have no answer", SERVER, (False, False), _after_success),
    Property("P13", "CLOSE is answered by CLOSE, once", BOTH, ("none", False, False), _close),
    Property(
        "P14",
        "strict: a KEXINIT that is not the first packet is the end",
        BOTH,
        ("identification", False),
        _strict_first,
    ),
    Property("P15", "strict: only what the exchange wants next", SERVER, "before", _strict_only(Role.SERVER)),
    Property("P15", "strict: only what the exchange wants next", CLIENT, "before", _strict_only(Role.CLIENT)),
    Property("P17", "no reply without a request, and one for each", BOTH, None, _replies),
    Property("P18", "no login before key, trust, NEWKEYS and service", CLIENT, 0, _credentials),
    Property("V09", "success in answer to a key query is no login", CLIENT, False, _query_is_no_login),
    Property("V09", "a login without proof is called trivial", CLIENT, 0, _trivial),
)


# ------------------------------------------------------------------------------------------- properties of one state

REKEYS = {
    Role.SERVER: (("KEXINIT", "KEXINIT"), ("KEX30", "KEX31 NEWKEYS"), ("NEWKEYS", "[KeysExchanged]")),
    Role.CLIENT: (("KEXINIT", "KEXINIT KEX30"), ("KEX31", "NEWKEYS"), ("NEWKEYS", "[KeysExchanged]")),
}
"""A rekey that the peer starts: what it says, and what must be answered."""
OWN_REKEYS = {
    Role.SERVER: (("APP_REKEY", "KEXINIT"), ("KEXINIT", SILENT), *REKEYS[Role.SERVER][1:]),
    Role.CLIENT: (("APP_REKEY", "KEXINIT"), ("KEXINIT", "KEX30"), *REKEYS[Role.CLIENT][1:]),
}


def rekeys(machine: Machine, situation: str) -> Iterator[str]:
    """P5, P6, P20: in every state of a situation a rekey, whoever starts it, is done, and changes nothing."""
    for state, where in machine.situations.items():
        if where != situation:
            continue
        for rekey in (REKEYS[machine.role], *((OWN_REKEYS[machine.role],) if situation == "connection" else ())):
            answers, after = machine.run([word for word, _ in rekey], state)
            if answers != [answer for _, answer in rekey]:
                yield f"{machine.ways()[state]}: a rekey is answered {answers}"
            elif after != state and not _alike(machine, state, after):
                yield f"{machine.ways()[state]}: a rekey leads elsewhere, to {machine.ways()[after]}"


def _alike(machine: Machine, state: str, after: str) -> bool:
    """Whether two states differ only in what RFC 8308 section 2.4 wants of the very first packet after the keys."""
    left, right = machine.steps[state], machine.steps[after]
    return all(
        (left[word][0] == right[word][0] and left[word][1] in {right[word][1], state, after})
        or left[word] == right[word]
        or machine.situations[left[word][1]].endswith("rekeying")
        for word in left
        if word != "EXT_INFO"
    )


def oracles(machine: Machine) -> Iterator[str]:
    """P19: whatever is tried with a name that does not exist is answered as with one that does, then and later."""
    for state, steps in machine.steps.items():
        for known, unknown in (("PASSWORD_WRONG", "PASSWORD_STRANGER"), ("QUERY_WRONG", "QUERY_STRANGER")):
            if steps[known] != steps[unknown]:
                yield f"{machine.ways()[state]}: {known} is {steps[known]}, {unknown} is {steps[unknown]}"
