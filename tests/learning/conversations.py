"""Conversations that show a learner what there is to learn: whole sessions, and the same with a rekey in every place.

They prove nothing.  They only spare it from finding by trying that five messages in a row lead somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from sshproto.wire.table import Role
from tests.learning.subjects import SUBJECTS

Words = tuple[str, ...]

KEYS = {
    Role.SERVER: "VERSION KEXINIT KEX30 NEWKEYS",
    Role.CLIENT: "VERSION KEXINIT KEX31 APP_TRUST NEWKEYS",
}
REKEY = {
    Role.SERVER: (
        "KEXINIT KEX30 NEWKEYS",
        "KEXINIT_WRONG_GUESS KEX30 KEX30 NEWKEYS",
        "APP_REKEY KEXINIT KEX30 NEWKEYS",
    ),
    Role.CLIENT: ("KEXINIT KEX31 NEWKEYS", "APP_REKEY KEXINIT KEX31 NEWKEYS"),
}
OPEN = {
    Role.SERVER: "SERVICE_REQUEST PASSWORD",
    Role.CLIENT: "SERVICE_ACCEPT APP_NONE USERAUTH_SUCCESS",
}
CHANNEL = {
    Role.SERVER: ("CHANNEL_OPEN", "CHANNEL_OPEN CHANNEL_REQUEST", "CHANNEL_OPEN APP_CLOSE"),
    Role.CLIENT: (
        "APP_OPEN",
        "APP_OPEN CHANNEL_OPEN_CONFIRMATION",
        "APP_OPEN CHANNEL_OPEN_CONFIRMATION APP_REQUEST",
        "APP_OPEN CHANNEL_OPEN_CONFIRMATION APP_CLOSE",
    ),
}
SESSIONS = {
    Role.SERVER: """
        SERVICE_REQUEST PASSWORD CHANNEL_OPEN CHANNEL_REQUEST CHANNEL_DATA CHANNEL_EOF APP_CLOSE CHANNEL_CLOSE
        SERVICE_REQUEST INTERACTIVE RESPONSE CHANNEL_OPEN APP_CLOSE CHANNEL_CLOSE
        SERVICE_REQUEST INTERACTIVE NONE INTERACTIVE RESPONSE CHANNEL_OPEN CHANNEL_EOF CHANNEL_CLOSE
        EXT_INFO SERVICE_REQUEST QUERY SIGNED
    """,
    Role.CLIENT: """
        SERVICE_ACCEPT APP_NONE USERAUTH_SUCCESS
        SERVICE_ACCEPT APP_SIGN USERAUTH_FAILURE_PARTIAL APP_NONE USERAUTH_SUCCESS
        SERVICE_ACCEPT APP_QUERY USERAUTH_PK_OK USERAUTH_SUCCESS
        SERVICE_ACCEPT APP_INTERACTIVE USERAUTH_INFO_REQUEST APP_ANSWER USERAUTH_SUCCESS
        SERVICE_ACCEPT APP_PASSWORD USERAUTH_PASSWD_CHANGEREQ APP_ANSWER USERAUTH_FAILURE
        SERVICE_ACCEPT APP_NONE USERAUTH_SUCCESS APP_OPEN CHANNEL_OPEN_FAILURE
        SERVICE_ACCEPT APP_NONE USERAUTH_SUCCESS APP_OPEN CHANNEL_OPEN_CONFIRMATION APP_REQUEST CHANNEL_SUCCESS
        SERVICE_ACCEPT APP_NONE USERAUTH_SUCCESS APP_OPEN CHANNEL_OPEN_CONFIRMATION CHANNEL_EOF APP_CLOSE CHANNEL_CLOSE
    """,
}


def rekeys(role: Role) -> list[Words]:
    """Each way to a rekey."""
    return [tuple(rekey.split()) for rekey in REKEY[role]]


def conversations(role: Role) -> Iterator[Words]:
    """For ``role``: each session, alone and with each rekey after each of its words."""
    keys = tuple(KEYS[role].split())
    lax = tuple(word.replace("KEXINIT", "KEXINIT_NOT_STRICT") for word in keys)
    for place in range(1, len(keys)):
        yield (*lax[:place], "IGNORE", *lax[place:])
        yield (*keys[:place], "IGNORE")
    for line in SESSIONS[role].strip().splitlines():
        session = tuple(line.split())
        yield keys + session
        yield lax + session
        for rekey in REKEY[role]:
            middle = tuple(rekey.split())
            for place in range(len(session) + 1):
                yield keys + session[:place] + middle + session[place:]
    # What is said in the middle of a rekey comes out at its end.
    begun = keys + tuple(OPEN[role].split())
    for before in ((), *(tuple(line.split()) for line in CHANNEL[role])):
        for rekey in REKEY[role]:
            middle = tuple(rekey.split())
            for place in range(1, len(middle)):
                for word in SUBJECTS[role].words:
                    yield begun + before + (*middle[:place], word, *middle[place:])
