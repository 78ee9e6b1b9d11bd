"""Key files to ssh-keygen, puttygen and openssl, and from these: every form, type, encryption, option and list.

``sshproto key`` reads what a tool has written, and writes what the tool reads then.  What is tried is in
``tests/support/formats.py``, and so is the page that tells of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, PublicKey, certificate_text, sshsig
from sshproto.wire.codec import string, text
from sshproto_cli.main import main
from sshproto_cli.terminal import Terminal
from tests.support import formats, peers
from tests.support.formats import BOTH, KINDS, READ, TOKENS, Form, List, Same, Scheme, Signature

WORD = "correct horse"
PACKAGES = {"ssh-keygen": "openssh-client", "puttygen": "putty-tools", "openssl": "openssl"}
BITS = {"ssh-rsa": 2048, "ecdsa-sha2-nistp256": 256, "ecdsa-sha2-nistp384": 384, "ecdsa-sha2-nistp521": 521}
CURVES = {"ecdsa-sha2-nistp256": "P-256", "ecdsa-sha2-nistp384": "P-384", "ecdsa-sha2-nistp521": "P-521"}

Tool = Callable[..., str]


def run(*words: object, stdin: str = "", check: bool = True) -> str:
    """Run a tool, in UTC.

    Returns:
        What it wrote to standard output.
    """
    program = shutil.which(str(words[0]))
    if program is None:
        message = f"{words[0]} is not installed (Debian: apt install {PACKAGES[str(words[0])]})"
        pytest.fail(message) if os.environ.get("SSHPROTO_REQUIRE_PEERS") == "1" else pytest.skip(message)
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": "/dev/null", "TZ": "UTC"}
    argv = [program, *map(str, words[1:])]
    done = subprocess.run(argv, input=stdin.encode(), env=env, capture_output=True, check=False, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{argv}: {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Tests are in a folder of their own, in UTC; nobody is at a terminal, and the passphrase is in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Terminal, "present", False)
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: None)
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", WORD)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    Path("word").write_text(WORD)
    Path("none").write_text("")
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def key(capfd):
    """Runs a verb of ``sshproto key``, which has to succeed: its output."""

    def ran(*words, status=0):
        got = main(["key", *map(str, words)])
        out, err = capfd.readouterr()
        assert got == status, err
        return out

    return ran


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """A key of ssh-keygen's of each type, in its own format."""
    room = tmp_path_factory.mktemp("keys")
    for kind in KINDS:
        name = kind.removeprefix("ssh-").partition("-")[0]
        size = ("-b", BITS[kind]) if kind in BITS else ()
        run("ssh-keygen", "-q", "-t", name, *size, "-N", "", "-C", "me@here", "-f", room / kind)
    return {kind: room / kind for kind in KINDS}


def public(path: Path) -> PublicKey:
    return PublicKey.parse(path.with_name(f"{path.name}.pub").read_text())


# -------------------------------------------------------------------------------------------------------- private keys


@attrs.frozen
class File:
    """A key file of a tool's."""

    path: Path
    public: PublicKey


def written(tool: str, base: Path, kind: str, options: tuple[str, ...], word: str = "") -> File:
    """A private key file that a tool has written, ``theirs``."""
    theirs = Path("theirs")
    if tool == "ssh-keygen":
        shutil.copy(base, theirs)
        run(tool, "-q", "-p", "-P", "", "-N", word, *options, "-f", theirs)
    elif tool == "puttygen":
        new = Path("word" if word else "none")
        if word and "private" in options and "--ppk-param" in options and "version=2" not in options:
            options = (*options[:-1], options[-1] if "memory" in options[-1] else f"{options[-1]},memory=64,passes=2")
        run(tool, base, *options, "-P", "--old-passphrase", "none", "--new-passphrase", new, "-o", theirs)
    else:
        return by_openssl(base, kind, options, word)
    return File(theirs, public(base))


def by_openssl(base: Path, kind: str, options: tuple[str, ...], word: str) -> File:
    plain, theirs = Path("plain"), Path("theirs")
    how = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048") if kind == "ssh-rsa" else ("-algorithm", "ed25519")
    if kind in CURVES:
        how = ("-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{CURVES[kind]}")
    run("openssl", "genpkey", *how, "-out", plain)
    locked = ("-passout", f"pass:{word}") if word else ()
    if "-traditional" in options:
        run("openssl", "pkey", "-in", plain, *options, *locked, "-out", theirs)
    else:
        run("openssl", "pkcs8", "-topk8", "-in", plain, *options, *(locked or ("-nocrypt",)), "-out", theirs)
    theirs.chmod(0o600)
    return File(theirs, PublicKey.parse(run("openssl", "pkey", "-in", plain, "-pubout")))


def read_by(tool: str, path: Path, word: str = "") -> PublicKey:
    """The public half of a private key file, as a tool reads it."""
    if tool == "ssh-keygen":
        return PublicKey.parse(run(tool, "-y", "-P", word, "-f", path))
    if tool == "puttygen":
        old = Path("word" if word else "none")
        return PublicKey.parse(run(tool, path, "-L", "--old-passphrase", old))
    return PublicKey.parse(run(tool, "pkey", "-in", path, "-passin", f"pass:{word}", "-pubout"))


OURS = {"OpenSSH": "openssh", "PKCS#8": "pkcs8"}


def cells(forms: tuple[Form, ...]) -> list[Any]:
    return [pytest.param(form, kind, id=f"{form.name}-{form.tool}-{kind}") for form in forms for kind in form.ways]


@pytest.mark.parametrize(("form", "kind"), cells(formats.PRIVATE))
def test_private_keys(key, made, form: Form, kind: str):
    file = written(form.tool, made[kind], kind, form.options)
    file.path.chmod(0o600)
    assert PublicKey.parse(key("convert", "-y", file.path)) == file.public
    signed = PrivateKey.load(file.path.read_bytes()).sign(b"data")
    file.public.verify(signed, b"data", file.public.signature_algorithms[0])
    if form.ways[kind] == READ:
        assert form.name not in OURS
        return
    key("convert", file.path, "--to", OURS[form.name], "-o", "ours")
    assert read_by(form.tool, Path("ours")) == file.public
    if form.name == "OpenSSH":
        assert run("ssh-keygen", "-l", "-f", "ours") == key("show", "ours").splitlines()[0] + "\n"
        assert " me@here (" in key("show", "ours")


@pytest.mark.parametrize("scheme", formats.SCHEMES, ids=lambda it: f"{it.form}-{it.name}-{it.tool}")
def test_encryption(key, made, monkeypatch, scheme: Scheme):
    file = written(scheme.tool, made[scheme.kind], scheme.kind, scheme.options, WORD)
    file.path.chmod(0o600)
    assert "encrypted: " in key("show", file.path)
    assert PublicKey.parse(key("convert", "-y", file.path)) == file.public
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "incorrect horse")
    key("convert", file.path, "-i", "--no-passphrase", status=1)
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", WORD)
    if scheme.way == BOTH:
        key("convert", file.path, "--to", OURS[scheme.form], *scheme.ours, "-o", "ours")
        assert read_by(scheme.tool, Path("ours"), WORD) == file.public
    key("convert", file.path, "-i", "--no-passphrase")  # and the tool's file becomes one that is not encrypted
    assert PrivateKey.load(file.path.read_bytes()).public_key == file.public


# --------------------------------------------------------------------------------------------------------- public keys


def token(kind: str, handle: bytes) -> PublicKey:
    """The public half of a key that might be in a token."""
    if kind == TOKENS[0]:
        return PublicKey.from_blob(text(kind) + string(handle[-32:]) + text("ssh:"), "me@here")
    return PublicKey.from_blob(text(kind) + text("nistp256") + string(handle[-65:]) + text("ssh:"), "me@here")


@pytest.fixture
def publics(made) -> dict[str, PublicKey]:
    """A key of each type, also of those in tokens."""
    found = {kind: public(path) for kind, path in made.items()}
    for kind, plain in zip(TOKENS, ("ssh-ed25519", "ecdsa-sha2-nistp256"), strict=True):
        found[kind] = token(kind, found[plain].blob)
    return found


PUBLIC_FORMS = {"one line": "openssh", "RFC 4716": "rfc4716", "PKCS#8": "pkcs8", "PKCS#1": "pkcs1"}


def exported(form: Form, path: Path) -> str:
    """What a tool makes of the one-line form."""
    if form.tool == "ssh-keygen":
        return run(form.tool, "-e", *form.options, "-f", path) if form.options else path.read_text()
    if form.tool == "puttygen":
        Path("as4716").write_text(PublicKey.parse(path.read_text()).rfc4716())
        return run(form.tool, "as4716", *form.options)
    if form.name == "PKCS#1":
        Path("aspkcs8").write_text(PublicKey.parse(path.read_text()).pkcs8())
        return run(form.tool, "rsa", "-pubin", "-in", "aspkcs8", *form.options)
    Path("aspkcs8").write_text(PublicKey.parse(path.read_text()).pkcs8())
    return run(form.tool, "pkey", "-pubin", "-in", "aspkcs8", "-pubout")


def imported(form: Form, path: Path) -> PublicKey:
    """What a tool reads of a form."""
    if form.tool == "ssh-keygen" and form.options:
        return PublicKey.parse(run(form.tool, "-i", *form.options, "-f", path))
    if form.tool == "ssh-keygen":
        told = run(form.tool, "-l", "-f", path).split()
        found = PublicKey.parse(path.read_text())
        assert told[:2] == [str(found.bits), found.fingerprint()]
        return found
    if form.tool == "puttygen":
        return PublicKey.parse(run(form.tool, path, "-L"))
    option = ("rsa", "-RSAPublicKey_in") if form.name == "PKCS#1" else ("pkey", "-pubin", "-pubout")
    return PublicKey.parse(run(form.tool, *option, "-in", path))


@pytest.mark.parametrize(("form", "kind"), cells(formats.PUBLIC))
def test_public_keys(key, publics, form: Form, kind: str):
    Path("id.pub").write_text(publics[kind].openssh() + "\n")
    Path("theirs").write_text(exported(form, Path("id.pub")))
    assert PublicKey.parse(key("convert", "theirs", "--to", "openssh")) == publics[kind]
    key("convert", "id.pub", "--to", PUBLIC_FORMS[form.name], "-o", "ours")
    assert imported(form, Path("ours")) == publics[kind]


# -------------------------------------------------------------------------------------------------------- certificates


def listed(path: str) -> list[str]:
    """What ssh-keygen -L says of a certificate."""
    return [line.rstrip() for line in run("ssh-keygen", "-L", "-f", path).splitlines()[1:]]


@pytest.mark.parametrize("same", formats.CERTIFICATES, ids=lambda it: it.name)
def test_certificates(key, made, publics, same: Same):
    """Both have the same options; each shows the other's certificate as its own, and both are the same."""
    for name in ("theirs", "ours"):
        Path(f"{name}.pub").write_text(publics[same.kind].openssh() + "\n")
    authority = made[same.authority]
    usual = {"-I": "an id", "-n": "alice", "-V": "always:forever"}
    common = [word for pair in usual.items() if pair[0] not in same.options for word in pair] + [*same.options]
    for _ in range(3):  # relative times are the same only within a second
        run("ssh-keygen", "-q", "-s", authority, *common, "theirs.pub")
        key("certify", "-q", "-s", authority, *common, "ours.pub")
        theirs, ours = listed("theirs-cert.pub"), listed("ours-cert.pub")
        if theirs == ours:
            break
    assert ours == theirs
    for name in ("theirs", "ours"):
        certificate = Certificate.parse(Path(f"{name}-cert.pub").read_text())
        assert certificate.key == publics[same.kind]
        assert certificate.authority == public(authority)
        assert certificate.comment == "me@here"
        told = key("show", f"{name}-cert.pub").splitlines()
        shown = [re.sub(r" \((expired|not yet valid)\)$", "", line) for line in told[1:]]
        assert without_values(shown) == without_values(theirs)


def without_values(lines: list[str]) -> list[str]:
    """Without what the options that aren't known hold: ssh-keygen shows that in hexadecimal."""
    return [re.sub("UNKNOWN OPTION: .*", "UNKNOWN OPTION", line) for line in lines]


def test_an_authority_in_an_agent_of_openssh(key, made, publics, monkeypatch):
    Path("id.pub").write_text(publics["ssh-ed25519"].openssh() + "\n")
    with peers.ssh_agent(Path("socket").absolute()):
        monkeypatch.setenv("SSH_AUTH_SOCK", "socket")
        subprocess.run(["ssh-add", "-q", made["ssh-rsa"]], check=True, timeout=30, stdin=subprocess.DEVNULL)
        authority = made["ssh-rsa"].with_name("ssh-rsa.pub")
        for algorithm in ("rsa-sha2-512", "rsa-sha2-256"):
            usual = ("-q", "-I", "x", "-n", "a", "-V", "+1h", "-t", algorithm)
            key("certify", "-U", "-s", authority, *usual, "id.pub")
            assert f"(using {algorithm})" in "".join(listed("id-cert.pub"))
            assert Certificate.parse(Path("id-cert.pub").read_text()).authority == public(made["ssh-rsa"])


def test_what_is_only_read(key, made, publics):
    """Certificates for nobody, and those that are signed with SHA-1."""
    Path("id.pub").write_text(publics["ssh-ed25519"].openssh() + "\n")
    run("ssh-keygen", "-q", "-s", made["ssh-rsa"], "-I", "x", "id.pub")
    assert "Principals: (none)" in key("show", "id-cert.pub")
    run("ssh-keygen", "-q", "-s", made["ssh-rsa"], "-I", "x", "-n", "a", "-t", "ssh-rsa", "id.pub")
    assert "(using ssh-rsa)" in key("show", "id-cert.pub")
    usual = ("-q", "-s", made["ssh-rsa"], "-I", "x", "-V", "+1h", "id.pub")
    key("certify", *usual, "-n", "", status=1)
    key("certify", *usual, "-n", "a", "-t", "ssh-rsa", status=1)


# ----------------------------------------------------------------------------------------------------------- revocation


@pytest.fixture(scope="module")
def items(made) -> dict[str, Any]:
    """An authority, a key, and certificates for others."""
    authority = PrivateKey.load(made["ecdsa-sha2-nistp384"].read_bytes())
    other = PrivateKey.generate(comment="another authority")

    def issue(by: PrivateKey, certified: PublicKey | None = None, **values: Any) -> Certificate:
        certified = certified or PrivateKey.generate(comment="certified").public_key
        given = {"key_id": "some id", "principals": ["a"], "valid_before": FOREVER} | values
        return Certificate.issue(by, certified, CertificateKind.USER, **given)

    return {
        "ca": authority.public_key,
        "key": public(made["ssh-ed25519"]),
        "rsa": public(made["ssh-rsa"]),
        "of-key": Certificate.issue(
            authority,
            public(made["ssh-ed25519"]),
            CertificateKind.USER,
            key_id="k",
            principals=["a"],
            valid_before=FOREVER,
        ),
        "serial-5": issue(authority, serial=5),
        "serial-8": issue(authority, serial=8),
        "serial-16": issue(authority, serial=16),
        "serial-70": issue(authority, serial=70),
        "serial-128": issue(authority, serial=128),
        "id": issue(authority, key_id="an id"),
        "numberless": issue(authority, key_id="by its id"),
        "of-another": issue(other, serial=5, key_id="an id"),
    }


@pytest.mark.parametrize("each", formats.LISTS, ids=lambda it: it.name)
def test_revocation_lists(key, capfd, items, each: List):
    for name, item in items.items():
        Path(f"{name}.pub").write_text(item.openssh() + "\n")
    values = {
        "KEY": items["key"].openssh(),
        "CERTIFICATE": items["serial-70"].openssh(),
        "NUMBERLESS": items["numberless"].openssh(),
        "FINGERPRINT": items["key"].fingerprint(),
    }
    for number, lines in enumerate((each.lines, each.more)):
        if lines:
            Path("spec").write_text("".join(f"{line.format(**values)}\n" for line in lines))
            update = ["-u"] if number else []
            run("ssh-keygen", "-q", "-k", *update, "-f", "theirs", *each.options, "spec")
            key("revoke", "-q", *update, "-f", "ours", *each.options, "spec")
    theirs, ours = (KRL.parse(Path(name).read_bytes()) for name in ("theirs", "ours"))
    assert attrs.evolve(ours, generated=0, version=0) == attrs.evolve(theirs, generated=0, version=0)
    assert abs(ours.generated - theirs.generated) < 60
    assert ours.version == (77 if "-z" in each.options else len(each.more) and 1)
    files = [f"{name}.pub" for name in items]
    verdicts = [run("ssh-keygen", "-Q", "-f", name, *files, check=False) for name in ("theirs", "ours")]
    revoked = verdicts[0].count(": REVOKED\n")
    assert 0 < revoked < len(files)
    verdicts += (key("revoke", "-Q", "-q", "-f", name, *files, status=1) for name in ("theirs", "ours"))
    assert len(set(verdicts)) == 1
    for name in files:
        done = main(["key", "revoke", "-Q", "-q", "-f", "theirs", name])
        assert f"{name} " in capfd.readouterr().out
        assert done == int(next(line for line in verdicts[0].splitlines() if line.startswith(name)).endswith("REVOKED"))
    without_head = [
        [line for line in run("ssh-keygen", "-Q", "-l", "-f", name).splitlines() if not line.startswith("# ")]
        for name in ("theirs", "ours")
    ]
    assert without_head[0] == without_head[1]


# ---------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("each", formats.SIGNATURES, ids=lambda it: it.name)
def test_signatures(capfd, made, each: Signature):
    shutil.copy(made[each.kind], "id")
    Path("id.pub").write_text(public(made[each.kind]).openssh() + "\n")
    Path("message").write_bytes(b"a message\n")
    signer = "id"
    if each.certified:
        signer = "id-cert.pub"
        authority = PrivateKey.load(made["ecdsa-sha2-nistp256"].read_bytes())
        values = {"key_id": "x", "principals": ["me"], "valid_before": FOREVER}
        certificate = Certificate.issue(authority, public(made[each.kind]), CertificateKind.USER, **values)
        Path(signer).write_text(certificate.openssh() + "\n")
    names = {"KEY": public(made[each.kind]).openssh(), "AUTHORITY": public(made["ecdsa-sha2-nistp256"]).openssh()}
    Path("good").write_text(each.good.format(**names) + "\n")
    Path("bad").write_text(each.bad.format(**names) + "\n")

    def ours(*words: object) -> bool:
        status = main([*map(str, words)])
        capfd.readouterr()
        return status == 0

    run("ssh-keygen", "-q", "-Y", "sign", "-f", signer, "-n", each.namespace, "-O", f"hashalg={each.hash}", "message")
    assert ours("sign", "-q", "-f", signer, "-n", each.namespace, "--hash", each.hash, "-o", "ours.sig", "message")
    signed = [sshsig.FileSignature.parse(Path(name).read_bytes()) for name in ("message.sig", "ours.sig")]
    assert {(it.hash_name, it.namespace) for it in signed} == {(each.hash, each.namespace)}
    assert signed[0].signer == signed[1].signer
    Path("other").write_bytes(b"another message\n")
    for signature in ("message.sig", "ours.sig"):
        for signers, message, good in (("good", "message", True), ("bad", "message", False), ("good", "other", False)):
            said = run(
                *("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "me", "-n", each.namespace, "-s", signature),
                stdin=Path(message).read_text(),
                check=False,
            )
            assert said.startswith("Good") is good
            assert ours("verify", "-f", signers, "-I", "me", "-n", each.namespace, "-s", signature, message) is good


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_tells_what_was_run():
    page = formats.PAGE.read_text(encoding="utf-8")
    assert formats.filled(page) == page, "run: python -m tests.support.formats"


def test_ssh_has_no_other_ciphers():
    known = set(run("ssh", "-Q", "cipher").split())
    assert known <= {scheme.name for scheme in formats.SCHEMES if scheme.form == "OpenSSH"}


def test_a_certificate_is_shown_as_it_is_issued(made):
    """The text that certificates are compared by has everything that is in them."""
    authority = PrivateKey.load(made["ssh-ed25519"].read_bytes())
    values = {"key_id": "x", "principals": ["a"], "valid_before": FOREVER}
    one = Certificate.issue(authority, authority.public_key, CertificateKind.USER, **values)
    for change in ({"key_id": "y"}, {"principals": ["b"]}, {"valid_before": 5}, {"valid_after": 5}, {"serial": 5},
                   {"extensions": {}}, {"critical_options": {"force-command": "x"}}):  # fmt: skip
        other = Certificate.issue(authority, authority.public_key, CertificateKind.USER, **(values | change))
        assert certificate_text(other) != certificate_text(one)
