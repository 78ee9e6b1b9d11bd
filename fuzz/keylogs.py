"""Key logs and session keys in JSON, whatever is in them: what can be read is kept, the rest is a KeyLogError.

The first byte of an input chooses.
"""

from __future__ import annotations

import json

from fuzz.clear import fit_to_show
from fuzz.running import main
from sshproto.replay import keylogs
from sshproto.replay.secrets import KeyLogError, Secrets
from sshproto.wire.table import Role
from tests.bench.synthetic import Traffic

MODULES = ("sshproto.replay.secrets", "sshproto.replay.keylogs")


def fuzz(data: bytes) -> None:
    """Read ``data``."""
    secrets = Secrets()
    content = data[1:]
    add = secrets.add_session_keys if data[:1] < b"\x80" else secrets.add_key_log
    try:
        count = add(content)
    except KeyLogError as error:
        fit_to_show(error)
        if error.line < 1:
            raise AssertionError("lines count from 1") from None
    else:
        if len(secrets) > 2 * count:
            raise AssertionError(f"{count} are told, {len(secrets)} are there")
    if len(repr(secrets)) > 1000 or any(it in repr(secrets) for it in ("value=", "key=b")):
        raise AssertionError("secrets are shown")
    lines = list(keylogs.read(content))
    for line in lines:
        fit_to_show(line.problem)
    keylogs.contents(lines)
    for cipher in ("aes128-ctr", "aes256-gcm@openssh.com", "x"):
        for sender in Role:
            list(secrets.derived([bytes(16), bytes(range(16))], cipher, sender))


def seeds() -> list[bytes]:
    """Logs and lists of both forms."""
    log = Traffic.make(keys=2, transfer=100).key_log
    cookie = "00" * 16
    full = {"client_cookie": cookie, "server_cookie": "11" * 16, "K_encoded": "0000000109", "session_id": "22" * 32,
            "H": "33" * 32, "iv_cs": "44" * 16, "key_cs": "55" * 32, "mackey_cs": "66" * 32,
            "cipher_cs": "aes256-ctr"}  # fmt: skip
    found = {"cipher_name": "aes128-ctr", "key": "77" * 16, "iv": "88" * 16}
    lists = [json.dumps([full, found]), json.dumps(full), json.dumps(full) + "\n" + json.dumps(found), "[]", "{}",
             "[1]", "[" * 500, json.dumps({"key": 1}), "null", json.dumps({**full, "K_encoded": "zz"})]  # fmt: skip
    logs = [log, f"{cookie} SHARED_SECRET 0009\n", f"{cookie} 0009\n# x\n\n", f"{cookie} PRIVATE_KEY x\n", "a b c d\n",
            f"{cookie} OTHER 00\n", "x" * 9000]  # fmt: skip
    return [b"\0" + it.encode() for it in lists] + [b"\xff" + it.encode() for it in logs]


if __name__ == "__main__":
    main("keylogs", fuzz, seeds, modules=MODULES)
