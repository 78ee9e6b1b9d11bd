"""Who may in at ``sshproto serve``: files of keys, authorities, principals and revoked keys, and of passwords."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto.errors import KeyFormatError
from sshproto.keys.authorized_keys import AuthorizedKeys, AuthorizedPrincipals, LoginRefused, parse, parse_principals
from sshproto.values import frozen
from sshproto_cli.options import Failure, complain, local_time, read_file

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.krl import KRL
    from sshproto.keys.permits import Permit
    from sshproto.keys.public import PublicKey

_LARGEST_LIST = 16 * 1024 * 1024


def read_passwords(path: str) -> dict[str, str]:
    """The passwords in a file with lines ``user:password``. Empty lines and those with ``#`` in front are passed over.

    Raises:
        Failure: It cannot be read, or a line has another form.
    """
    data = read_file(path, "password file")
    if stat.S_IMODE(Path(path).stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        complain(f"password file {path}: others than its owner may read or write it; chmod 600 would help")
    passwords: dict[str, str] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.rstrip(b"\r").decode("utf-8", "surrogateescape")
        if not line or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or not user or not password:
            raise Failure(f"password file {path} line {number}: expected user:password")
        if passwords.setdefault(user, password) != password:
            raise Failure(f"password file {path} line {number}: a second password for the same user")
    return passwords


@frozen(kw_only=True)
class KeyFiles:
    """What says whose keys are good. All of it is read anew for each login.

    Attributes:
        keys: The ``authorized_keys`` file.
        authorities: Keys of those whose certificates are good for every user.
        principals: For whom such a certificate has to be; None: for the user.
        revoked: What has been revoked.
    """

    keys: Path | None = None
    authorities: Path | None = None
    principals: Path | None = None
    revoked: Path | None = None

    def check(self) -> bool:
        """Say of each line that cannot be used why that is.

        Returns:
            Whether somebody could log in.

        Raises:
            Failure: A file cannot be read, others may write one that lets people in, or the list of what is revoked is
                none.
        """
        keys, authorities, principals = self._read_keys(), self._read_authorities(), self._read_principals()
        self._read_revoked()
        _tell(self.keys, keys.problems)
        _tell(self.authorities, _no_authorities(authorities))
        if principals is not None:
            _tell(self.principals, principals.problems)
        return bool(keys.entries or (_authorities(authorities) and (principals is None or principals.entries)))

    def authorize(self, shown: PublicKey | Certificate, user: str, address: str | None) -> Permit:
        """What somebody may do who shows this key or certificate.

        Args:
            shown: Which.
            user: Who wants in.
            address: From where, numeric; None if it is not known.

        Raises:
            LoginRefused: They may not in.
            Failure: A file cannot be read, or others may write it.
        """
        if self.keys is None and self.authorities is None:
            raise LoginRefused("keys are not wanted")
        return self._read_keys().authorize(
            shown,
            user,
            now=time.time(),
            address=address,
            authorities=_authorities(self._read_authorities()),
            principals=self._read_principals(),
            revoked=self._read_revoked(),
        )

    def _read_keys(self) -> AuthorizedKeys:
        if self.keys is None:
            return AuthorizedKeys()
        return parse(_read(self.keys, "authorized keys file"), local=local_time)

    def _read_authorities(self) -> AuthorizedKeys:
        return AuthorizedKeys() if self.authorities is None else parse(_read(self.authorities, "user CA file"))

    def _read_principals(self) -> AuthorizedPrincipals | None:
        if self.principals is None:
            return None
        return parse_principals(_read(self.principals, "principals file"), local=local_time)

    def _read_revoked(self) -> KRL | None:
        if self.revoked is None:
            return None
        from sshproto.keys.revocation import read_revoked

        try:
            return read_revoked(read_file(str(self.revoked), "revoked keys file", _LARGEST_LIST))
        except KeyFormatError as error:
            raise Failure(f"revoked keys file {self.revoked}: {error}") from None


def _read(path: Path, what: str) -> bytes:
    """The content of a file that lets people in.

    Raises:
        Failure: It cannot be read, or others may write it, who could let in anybody (see ``StrictModes`` of
            sshd_config(5)).
    """
    from sshproto_cli.settings import others_may_write

    data = read_file(str(path), what)
    try:
        status = path.stat()
    except OSError as error:
        raise Failure(f"{what} {path}: {error.strerror or error}") from None
    if stat.S_ISREG(status.st_mode) and others_may_write(status):
        raise Failure(f"{what} {path}: others may write it; it has to be yours or root's, and chmod go-w would help")
    return data


def _authorities(lines: AuthorizedKeys) -> list[PublicKey]:
    """The keys of lines with nothing but a key: of authorities."""
    return [entry.key for entry in lines.entries if not entry.options]


def _no_authorities(lines: AuthorizedKeys) -> list[tuple[int, str]]:
    odd = [(entry.line, "options mean nothing here") for entry in lines.entries if entry.options]
    return sorted([*lines.problems, *odd])


def _tell(path: Path | None, problems: list[tuple[int, str]] | tuple[tuple[int, str], ...]) -> None:
    for line, problem in problems:
        complain(f"{path}:{line}: this line is not used: {problem}")


class Gate:
    """Who may in.

    Args:
        keys: Whose keys are good.
        passwords: By user; None if passwords are not wanted.
    """

    def __init__(self, keys: KeyFiles, passwords: Mapping[str, str] | None) -> None:
        self._keys = keys
        self._salt = os.urandom(32)  # digests are compared: lengths do not show
        self._passwords = {user: self._digest(password) for user, password in (passwords or {}).items()}
        self._nobody = os.urandom(32)  # no password has this digest

    def by_key(self, shown: PublicKey | Certificate, user: str, address: str | None) -> Permit:
        """What somebody may do who shows this key or certificate.

        Raises:
            LoginRefused: They may not in.
        """
        try:
            return self._keys.authorize(shown, user, address)
        except Failure as failure:
            complain(str(failure))
            raise LoginRefused(str(failure)) from None

    def against_password(self, user: str, password: str) -> str:
        """What speaks against this password of this user; ``""`` if they may in. It takes the same time for users that
        there are not."""
        good = hmac.compare_digest(self._digest(password), self._passwords.get(user, self._nobody))
        if good:
            return ""
        return "wrong password" if user in self._passwords else "no password is set for this user"

    def _digest(self, password: str) -> bytes:
        return hashlib.blake2b(password.encode("utf-8", "surrogateescape"), key=self._salt, digest_size=32).digest()
