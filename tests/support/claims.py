"""What the suite claims about hostile peers: an id for each claim, a few words for it, and the tests that show it.

A test says what it stands for with ``@pytest.mark.covers("V01", "B14")``.  An id that is not listed here is an error at
collection.  ``pytest --claims`` collects, prints every claim with its tests, ends with what no test shows, and fails if
that is more than what is left out here with a reason.

V: flaws that implementations of SSH have had.  R: requirements, in the order of the standards.  B: bounds.
P: properties of whole runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import pytest

MARKER = "covers"

FLAWS = """
V01 prefix truncation: packets inserted before the keys, others cut away after (Terrapin, CVE-2023-48795)
V02 sequence numbers run up by long plaintext before the keys
V03 strict key exchange applied late, half, too long, or to the wrong messages
V04 login or extensions smuggled in before the keys
V05 channels and global requests before login
V06 a client that sends what only servers send, and the reverse
V07 a client driven past key exchange or login by messages that come too early
V08 a host key that nobody checked, or whose check failed open
V09 a login that proved nothing, taken for one that did
V10 a login without end: partial successes or questions for ever
V11 another user or service in the middle of a login
V12 a key that was asked about, taken for the key that signed
V13 other messages, or none, while keys are exchanged anew
V14 volume before login
V15 wrong guesses of the first key-exchange packet
V16 channel messages before the confirmation, after EOF, after CLOSE
V17 replies that nobody asked for
V18 service requests at odd times, repeated, or skipped
V19 another host key, or another session id, after a rekey
V20 compression that starts at the wrong packet
V21 a packet length that nobody checked
V22 packets too short to hold anything
V23 padding shorter than four, or longer than the packet
V24 packets that are no multiple of the block
V25 declared counts that allocate or loop
V26 declared string lengths past the end
V27 bytes after the end of a message
V28 channels whose packets may hold nothing
V29 window arithmetic that overflows, or never moves
V30 data beyond the window or the packet size
V31 extended data of unknown types, and credit that gets lost
V32 integers that are negative, padded or huge
V33 channel requests cut short
V34 a little compressed data that becomes much
V35 memory that stays behind after a refusal
V36 identification lines: long, endless, odd
V37 name-lists: long, empty, odd
V40 an authentication tag that is not enforced
V41 tags and secrets compared in variable time
V42 bad public values of elliptic curves
V43 bad public values of finite fields
V44 bad groups in group exchange
V45 cheap to ask, dear to answer
V46 algorithm, key type and signature type that do not belong together
V47 signatures and keys that verify although they must not
V48 a faulty own signature that gives the key away
V49 weak randomness
V50 weak algorithms by default
V51 certificates half checked
V52 security keys without a touch
V53 bad shares of hybrid post-quantum methods
V54 nonces and counters that repeat
V55 decryption before verification
V60 users that can be told from no users
V61 login attempts that are not counted
V62 long or odd passwords and user names
V63 expired passwords
V64 a method without a check behind it
V65 one flipped bit between no and yes
V66 an unreadable key that ends the connection
V67 host-bound signatures for another host
V68 banners: many, large, late
V70 control characters for a terminal
V71 user and host names in a shell
V72 local paths that a server chooses
V73 SFTP: ids, handles and lengths of the peer's choosing
V74 agent: replies of the wrong kind
V75 channels opened towards a client that asked for none
V76 environment variables that change programs
V77 a relay for whoever asks
V80 signal handlers
V81 reentry and races
V82 key files: modes, formats that run code
V83 many connections at once
V84 memory errors
"""

REQUIREMENTS = """
R1 any non-zero boolean is true; only 0 and 1 are sent
R2 a string has exactly its length
R3 an mpint has one form
R4 names in lists are not empty, hold no comma, no NUL
R5 an empty name-list is a name-list
R6 names have at most 64 characters, and case counts
R7 names with a domain are anybody's, and unknown ones are just unknown
R8 control characters are filtered before display
R9 a rekey comes before the sequence number wraps
R10 the number of packets under one key is bounded
R11 host keys are checked, and unknown ones can be refused
R12 no agent unless asked for
R13 no password without confidentiality
R14 our identification keeps to its form and length
R15 lines before a server's identification are allowed; before a client's not
R16 no NUL in an identification
R17 1.99 is 2.0 to a client
R18 the exchange hash takes identifications as they came
R19 padding and packet size of what is sent
R20 padding is random
R21 packets of 35000 bytes are accepted
R22 packet lengths are checked
R23 compression of each direction on its own
R24 cipher of each direction on its own
R25 all of a packet is encrypted, the cipher runs on
R26 the MAC is over sequence number and packet
R27 MAC of each direction on its own
R28 one wrong guess is ignored, once
R29 the cookie is random
R30 the first of the client's that the server has
R31 nothing in common is the end
R32 a guess is right when method and host key are first on both lists
R33 between our KEXINIT and NEWKEYS only what is allowed leaves
R34 what was in flight before the peer saw our KEXINIT is accepted
R35 the reserved number is ignored and hashed
R36 languages are ignored
R37 keys are derived by letter and extended
R38 the session id is the first exchange hash
R39 NEWKEYS takes effect at once, each direction on its own
R40 public Diffie-Hellman values are in range
R41 the host's signature over the exchange hash is verified
R42 a KEXINIT is answered, two at once are one exchange
R43 the roles stay the same in a rekey
R44 a rekey after a gigabyte or an hour
R45 a service that is refused ends the connection
R46 a service that is accepted is named
R47 after DISCONNECT nothing is sent nor accepted
R48 the words of a DISCONNECT are made harmless
R49 IGNORE at any time
R50 DEBUG is understood and not displayed
R51 each unknown message is answered, in order, by its number
R52 and changes nothing
R53 UNIMPLEMENTED for a request of ours resolves it
R54 no login before its service is accepted
R55 login has a time and a number of tries
R56 none is never listed
R57 another user or service starts the login anew
R58 an unknown service is refused
R59 an unknown user looks like a known one
R60 a new request drops the method before
R61 partial success only after a success
R62 login requests are answered in order
R63 success comes once, what follows is ignored
R64 what comes behind the successful request is the service's
R65 banners before success
R66 connection messages before success end the connection
R67 publickey in both forms
R68 what a login signature covers
R69 an unknown signature algorithm is a plain failure
R70 PK_OK repeats algorithm and key
R71 a malformed request ends the connection, a malformed key fails
R72 an expired password is asked to be changed and does not pass
R73 passwords are UTF-8
R74 host-based login is not offered
R75 keyboard-interactive gets success, failure or questions
R76 one round of questions at a time
R77 no prompts are prompts as well
R78 as many answers as questions
R79 unknown users are asked as well
R80 GSSAPI: a new request starts anew
R81 GSSAPI: mechanisms are bounded
R82 GSSAPI: keyex only after such a key exchange
R83 GSSAPI: errors and unknown messages
R84 global replies in order
R85 an unknown global request fails, or is silent
R86 an unknown channel type is refused with code 3
R87 every open is answered
R88 a window stays below 2^32
R89 data within window and packet size
R90 no packet size is offered that does not fit the transport
R91 the packet size is that of the data alone
R92 extended data uses the same window
R93 EOF is one direction's
R94 CLOSE is answered, without window
R95 a channel number is free after both CLOSEs
R96 data before CLOSE is delivered
R97 an unknown channel request fails, or is silent
R98 replies need no window
R99 a client refuses sessions
R100 terminal modes end, odd ones stop
R101 X11 channels only when asked for
R102 X11 requests: single connection, cookie
R103 environment with care
R104 one program for each session
R105 window-change has no reply
R106 signals by name, unknown ones ignored
R107 exit status goes one way
R108 port 0 is answered with the port
R109 a cancelled forwarding is the one that was asked for
R110 forwarded channels only as asked for
R111 a client refuses direct-tcpip
R112 break: replies and lengths
R113 IUTF8 is a mode
R114 packets under one key, both directions
R115 blocks under one key
R116 counter mode runs on
R117 group exchange: public values in range
R118 group exchange: sizes of groups
R119 group exchange: the asked sizes are hashed; the old request is refused
R120 points of curves are validated
R121 curve and key name agree
R122 the three NIST curves work
R123 the SHA-2 MACs
R124 public values strictly between 1 and p-1
R125 extension markers only in the first KEXINIT
R126 EXT_INFO is accepted where it was offered
R127 markers are never chosen as methods
R128 EXT_INFO right after the first NEWKEYS
R129 a client takes EXT_INFO at both places and needs none
R130 unknown extensions, any value, any order
R131 a large EXT_INFO is fine
R132 of two extensions of a name the first counts
R133 server-sig-algs lists all
R134 delay-compression is ignored
R135 RSA: the signature is of the algorithm asked for
R136 RSA signatures are compared as a whole
R137 Ed25519 and Ed448 have exact lengths
R138 X25519 shares have their length, and are not zero
R139 X25519 secrets are hashed as mpints
R140 no RC4
R141 the methods that RFC 9142 wants
R142 AES-GCM as SSH has it
R143 ChaCha20-Poly1305 as OpenSSH has it
R144 GSSAPI key exchange
R145 strict key exchange, all of it
R146 encrypt-then-MAC: verified before decrypted
R147 delayed compression begins after success
R148 PING is answered in order
R149 EXT_INFO during login
R150 end of write
R151 no more sessions
R152 Unix sockets: paths
R153 announced host keys are not trusted
R154 the INFO signal
R155 publickey bound to the host
R156 a peer that goes on sending after its KEXINIT
R157 peers without rekey
R158 every message cut at every byte
R159 every message with a byte more
R160 every number at its edges
R161 every string at its edges
R162 every message number in every state
R163 any cutting of the input gives the same
R164 what one side sends the other accepts
R165 after the end inputs do nothing and commands raise
R166 each kind of end is told apart
R167 data before the end is not lost
R168 misuse raises and changes nothing
R169 secrets are in no text
R170 no check is an assert; all Pythons
"""

BOUNDS = """
B1 identification line
B2 lines before it
B3 packet length before and after login
B4 input that waits
B5 packets that wait for a decision
B6 output that waits
B7 replies that wait
B8 name-lists of a KEXINIT
B9 numbers, points and blobs of a key exchange
B10 time of a key exchange
B11 output held up by a key exchange
B12 rekeys that the peer starts
B13 packets and bytes under one key
B14 input before login
B15 ignored messages cost nothing that stays
B16 service requests
B17 login: failures, requests, rounds
B18 user, service and method names; passwords
B19 prompts
B20 banners
B21 EXT_INFO
B22 public keys and signatures in a login
B23 signature verifications before login
B24 channels of the peer
B25 channels of ours
B26 receive windows
B27 window adjusts
B28 pending requests
B29 unsolicited replies
B30 channel requests
B31 forwardings
B32 decompressed payloads
B33 work for a packet
B34 memory of an idle connection
B35 announced host keys
B36 text of the peer's in events
"""

PROPERTIES = """
P1 after the end, silence
P2 one channel at a time, for a learner that has one
P3 a service only after the keys
P4 a channel only after a login
P5 a rekey before login is answered
P6 a rekey works in every state after login
P7 after our DISCONNECT, silence
P8 no second KEXINIT before NEWKEYS
P9 a service request is accepted, or the end
P10 a bad login is a failure
P11 success once
P12 after success, login requests are not answered
P13 CLOSE is answered by CLOSE, once
P14 strict: the first packet is KEXINIT
P15 strict: the exchange's next message or the end
P16 strict: sequence numbers restart
P17 no reply without a request
P18 a client keeps its credentials until all is proved
P19 valid and invalid users see the same
P20 a rekey is invisible to the data
P21 everything that grows is bounded
"""

LEFT_OUT: dict[str, str] = {
    "V72": "no file is read or written: there is no SCP, and no SFTP client",
    "V73": "there is no SFTP",
    "V84": "Python has no such memory errors; what led to them, bad lengths and states, is V21 to V33 and V40",
    "R80": "GSSAPI is not offered",
    "R81": "GSSAPI is not offered",
    "R82": "GSSAPI is not offered",
    "R83": "GSSAPI is not offered",
    "R144": "GSSAPI is not offered",
    "P2": "what a learner that knows one channel expects of its own words, not of SSH",
}
"""Claims that nothing here could show, and why."""


@attrs.frozen
class Claim:
    """What a test may stand for.

    Attributes:
        id: As in ``covers``.
        words: What it is about.
        left_out: Why no test shows it, or empty.
    """

    id: str
    words: str
    left_out: str = ""


def _claims() -> Iterator[Claim]:
    for line in (FLAWS + REQUIREMENTS + BOUNDS + PROPERTIES).splitlines():
        if line:
            name, words = line.split(" ", 1)
            yield Claim(name, words, LEFT_OUT.get(name, ""))


CLAIMS: dict[str, Claim] = {claim.id: claim for claim in _claims()}


def covered(item: pytest.Item) -> Iterator[str]:
    """The ids that a test stands for: the marks of the function, its class and its module together."""
    for mark in item.iter_markers(MARKER):
        yield from mark.args


def check(items: Iterable[pytest.Item]) -> None:
    """See that the tests claim only what can be claimed.

    Raises:
        pytest.UsageError: A test names an id that there is not, or no id.
    """
    for item in items:
        for mark in item.iter_markers(MARKER):
            if not mark.args or mark.kwargs:
                raise pytest.UsageError(f"{item.nodeid}: {MARKER}() takes ids such as 'V01', and at least one")
            for name in mark.args:
                if name not in CLAIMS:
                    raise pytest.UsageError(
                        f"{item.nodeid}: {name!r} is not among the claims of tests/support/claims.py"
                    )


def table(items: Iterable[pytest.Item]) -> dict[str, dict[str, int]]:
    """For each claim the tests that show it, without their parameters, and how many cases each has."""
    rows: dict[str, dict[str, int]] = {name: {} for name in CLAIMS}
    for item in items:
        test = item.nodeid.partition("[")[0]
        for name in dict.fromkeys(covered(item)):
            rows[name][test] = rows[name].get(test, 0) + 1
    return rows


def still_open(items: Iterable[pytest.Item]) -> list[str]:
    """The claims that no test shows, and that are not left out."""
    return [name for name, tests in table(items).items() if not tests and not CLAIMS[name].left_out]


def report(items: Iterable[pytest.Item]) -> Iterator[str]:
    """The table in lines, and at its end the sums and what is open."""
    rows = table(items)
    for name, tests in rows.items():
        yield f"{name} {CLAIMS[name].words}"
        if CLAIMS[name].left_out:
            yield f"    left out: {CLAIMS[name].left_out}"
        for test, cases in tests.items():
            yield f"    {test}" + (f" ({cases} cases)" if cases > 1 else "")
    yield ""
    for letter, kind in (("V", "flaws"), ("R", "requirements"), ("B", "bounds"), ("P", "properties")):
        names = [name for name in rows if name.startswith(letter)]
        shown = sum(bool(rows[name]) for name in names)
        left = [name for name in names if CLAIMS[name].left_out and not rows[name]]
        open_ = [name for name in names if not rows[name] and name not in left]
        words = f"{shown} of {len(names)} {kind} have tests, {len(left)} are left out with a reason"
        yield words + (f"; open: {' '.join(open_)}" if open_ else "")
