"""What stands about each flaw on ``docs/security-claims.md``: where it was seen, and what happens here.

An entry is the id, the CVE ids of implementations that had the flaw (or a dash), and behind a bar what sshproto does;
nothing stands there for what is left out with a reason.  The flaw itself is described where its id is:
:data:`tests.support.claims.FLAWS`.
"""

from __future__ import annotations

import re

import attrs

TOLD = """
V01 CVE-2023-48795 CVE-2024-41909 | Strict key exchange is offered by default: what is inserted ends the connection,
    and packet numbers restart with each key. A peer without it gets no ChaCha20-Poly1305 and no CBC with
    encrypt-then-MAC.
V02 CVE-2023-48795 | Sequence numbers that run round before the first keys end the connection, with strict key
    exchange or without; long before, the bound on packets before login does.
V03 CVE-2025-46712 | It holds from the very first packet, also in retrospect, until the peer's own NEWKEYS; only the
    next message of the chosen method may come; numbers restart in both directions or in none.
V04 CVE-2023-46445 CVE-2023-46446 | Nothing of login, channels or extensions is legal before the keys, whether key
    exchange is strict or not. The connection ends.
V05 CVE-2025-32433 CVE-2018-7750 CVE-2018-7749 CVE-2024-2873 | The connection ends, and the application sees no event.
V06 CVE-2018-10933 CVE-2018-1000805 | Who may send a message is part of the table of legal messages. The connection
    ends.
V07 CVE-2025-14942 | A client sends no login request before both sides' new keys, the verified signature of the host,
    the application's yes to its key, and the accepted service.
V08 CVE-2025-11625 CVE-2025-10966 CVE-2025-26465 | The signature is verified first, then the application is asked;
    until it accepts that question, nothing goes on. An error in a check is a no.
V09 CVE-2021-36368 CVE-2021-36367 | `AuthSucceeded` says whether any proof was given, and `allow_trivial_auth=False`
    refuses such logins. Success is never the answer to a mere key query.
V10 CVE-2026-59849 | Attempts and rounds of questions are counted; past the bound the client ends the connection.
V11 CVE-2026-46705 | Another user or service starts anew; after a partial success it ends the connection.
V12 CVE-2024-45337 | Asking about a key and proving a key are two questions with two answers; the first lets nobody
    in, and what is reported is the key that signed.
V13 CVE-2025-26466 CVE-2025-22869 CVE-2016-8858 | Between the peer's KEXINIT and its NEWKEYS only key exchange is
    legal. What we hold back is bounded, the exchange has a deadline, and a peer may start only so many.
V14 - | Bytes and packets before login are counted, as no new keys come there.
V15 CVE-2025-8277 | Just one packet of a key exchange method is dropped, and no key is made before it is known whether
    the guess was right.
V16 CVE-2026-59850 | Each half of each channel has its state, and a second table says what is legal in it. Numbers of
    ours are never used again.
V17 CVE-2026-39830 | They answer nothing, are counted, and past the bound end the connection. Replies are matched in
    order, with requests that wanted one.
V18 - | Login needs its service; before login there is no other; asking again is bounded and resets no count; after
    login it ends the connection.
V19 - | The host key of the first exchange holds for the connection, and so does the session id. Every later signature
    is verified.
V20 - | Delayed compression begins with the packet after success, in each direction by itself, and anew with each key.
V21 CVE-2024-43410 CVE-2019-3855 CVE-2026-55200 CVE-2026-66033 CVE-2026-66035 | It is judged at its fourth byte,
    before anything is waited for or kept. Where it is encrypted under a plain MAC, a bad one looks like a bad MAC.
V22 CVE-2021-43565 CVE-2019-3861 | The connection ends.
V23 CVE-2026-46597 | The connection ends; padding leaves at least one byte of payload.
V24 - | The connection ends.
V25 CVE-2026-42189 CVE-2026-55199 CVE-2019-3856 CVE-2025-58181 CVE-2025-48040 | A count is held against the bytes that
    are there and against a bound, before any loop.
V26 - | Every field of every message is tried. A malformed message ends the connection, a malformed key or signature
    in a login fails that login.
V27 - | Every message ends where its definition ends. The connection ends, or the request that the bytes belong to
    fails.
V28 CVE-2026-59843 | Channels with packets of less than 64 bytes are refused.
V29 CVE-2025-54804 CVE-2026-39834 | A window past 2^32 - 1 ends the connection; adjusts by nothing are counted; a
    write takes what fits and says how much that was.
V30 - | The connection ends; there is no grace.
V31 CVE-2026-54886 | Data of a type that means nothing is thrown away and its credit returned.
V32 - | Negative and padded numbers end a key exchange and make a key unreadable; the length is bounded.
V33 CVE-2019-3857 | The request fails by itself, or is passed over if it wants no reply; the connection goes on.
V34 CVE-2026-23943 CVE-2026-46702 | Inflation stops at the largest packet, and the connection ends. Nothing is
    inflated before login, unless `zlib` is asked for.
V35 - | Memory is measured after floods of refused channels, requests and logins: nothing stays.
V36 CVE-2026-48108 CVE-2022-21716 | Lines and their number are bounded; the version must be 2.0, or 1.99 from a
    server; a client may send nothing before its line.
V37 - | Length of lists, number and length of names are bounded, and the work grows with the length, not with its
    square.
V40 CVE-2026-59847 CVE-2025-5987 CVE-2025-5372 | Every bit of every tag is tried, in all modes and both directions. No
    byte of a packet leaves before its tag was verified.
V41 - | `hmac.compare_digest`; the source is searched for any other comparison.
V42 CVE-2026-59842 | Points are uncompressed, of their exact length and on their curve; a secret of zero ends the key
    exchange.
V43 CVE-2023-28113 | Values lie strictly between 1 and p - 1 and have at least four bits set; so lies the secret.
V44 - | 2048 to 8192 bits and within what was asked; an odd prime and no trivial generator. Whether the prime is safe
    is not proved: the server that signs it has the secret anyway.
V45 CVE-2026-39829 CVE-2002-20001 | Sizes of RSA keys, rounds of key derivation in key files, signatures before login
    and key exchanges that a peer starts are all bounded.
V46 CVE-2026-35387 CVE-2020-9283 CVE-2022-27191 | The three must be one row of one table, and the algorithm must be
    allowed before the key is looked at.
V47 - | Ed25519 keys of small order are refused, and so are RSA signatures longer than the key; whatever the backend
    raises means no.
V48 - | Every signature of ours is verified before it is sent, an outside signer's as well.
V49 CVE-2024-31497 CVE-2022-29245 | The operating system's randomness, fresh for each exchange, unless the application
    brings its own; `random` is not imported.
V50 CVE-2026-44405 | Weak algorithms are offered only if the application names them. `none` as cipher or MAC, DSA, RC4
    and the like do not exist here.
V51 CVE-2026-35414 CVE-2026-42508 CVE-2026-46595 | A certificate that is read is signed by a plain key, not with SHA-1,
    with options in order; one that is checked is of its kind, in its time, of a trusted authority that is not revoked,
    for a principal that it names, without an option that nobody enforces. A host's is taken only where one was asked
    for, and its own key has to have signed; an authority's line in a file is never taken for a key.
V52 CVE-2026-39831 | What a security key signs says whether somebody touched it. Without, it opens nothing, unless both
    the configuration and the line of the key waive that. A PIN is asked for likewise.
V53 - | Both halves have exact lengths and are checked; whatever is wrong ends the key exchange.
V54 - | New keys come long before numbers repeat, and if the peer prevents that, the connection ends.
V55 CVE-2008-5161 | Encrypt-then-MAC is verified first. In the other modes a bad length looks like a bad MAC, and
    nothing inside is looked at before the MAC was.
V60 CVE-2018-15473 CVE-2018-15599 CVE-2016-6210 CVE-2026-48859 | A request is decoded as a whole before anybody is
    asked; an unknown user gets the same bytes. How long the application takes to say no is its own care.
V61 CVE-2015-5600 | Failures, requests and abandoned questions are counted for the connection, and nothing resets the
    count.
V62 CVE-2016-6515 CVE-2025-61984 | They fail without the application being asked.
V63 - | A new password is taken only where the application has asked for one, and the old one lets nobody in.
V64 CVE-2026-39835 CVE-2026-39828 | A method that is not configured is neither listed nor asked about. `none` needs
    `ask_none` and the application's yes.
V65 CVE-2023-51767 | Only accepting the question that is open lets anyone in, and only `True` is a yes of a handler.
    Flipped bits in memory are beyond what Python can notice.
V66 - | The login fails, the connection goes on.
V67 - | Host-bound logins are not offered; a request for one fails.
V68 - | They are counted, bounded, made printable, and ignored after success.
V70 - | Texts of events, errors and logs have control characters and reversed directions escaped; raw text is there
    for who asks for it.
V71 CVE-2023-51385 CVE-2025-61984 CVE-2026-59846 CVE-2026-54591 | The library starts no shell and expands no names.
    The command line's server runs a shell only for what a logged-in user has asked to run.
V72 CVE-2020-15778 CVE-2019-6111 CVE-2026-0964 CVE-2026-35385 CVE-2023-35887 |
V73 CVE-2026-59848 CVE-2025-5318 CVE-2025-5449 CVE-2025-48038 CVE-2025-48041 |
V74 CVE-2023-38408 CVE-2025-47913 CVE-2025-47914 | A reply is read as what was asked for, or it is an error; messages,
    lists and constraints have bounds; no library is loaded for a token; what is constrained in a way that is not known
    is refused, and destination constraints are obeyed.
V75 - | Refused without a question, unless that very forwarding was asked for and granted.
V76 - | A handler that says nothing grants no variable; names, values and their number are bounded; `serve` takes
    locale variables only.
V77 - | A handler that says nothing forwards nothing; hosts and ports are checked.
V80 CVE-2024-6387 | The core has no signal, thread or clock; its imports are held by a test.
V81 - | There are no callbacks to come back from: events are pulled one at a time.
V82 CVE-2022-24302 CVE-2022-45047 | The core opens no file; key files are parsed, not unpickled, every damage is one
    kind of error, and no file can ask for more work than is reasonable. What `sshproto key` writes is never readable
    by others, not for a moment, and replaces nothing unasked.
V83 CVE-2025-26466 | Servers of the faces have room for so many connections, and for fewer that have not logged in. A
    connection of the core is alone.
V84 CVE-2019-3858 CVE-2019-3859 CVE-2019-3860 CVE-2019-3862 CVE-2019-3863 |
"""


@attrs.frozen
class Told:
    """What is told about a flaw.

    Attributes:
        seen: CVE ids.
        here: What sshproto does; empty if the flaw is left out with a reason.
    """

    seen: tuple[str, ...]
    here: str


def _told(entry: str) -> tuple[str, Told]:
    head, _, here = entry.partition("|")
    name, *seen = head.split()
    return name, Told(tuple(seen) if seen != ["-"] else (), " ".join(here.split()))


FLAWS_TOLD: dict[str, Told] = dict(_told(entry) for entry in re.split(r"\n(?=V)", TOLD.strip()))
