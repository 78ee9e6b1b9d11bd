"""allowed_signers: the same answers as ssh-keygen's, and where they are stricter."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.clear import fit_to_show
from sshproto.config import UNATTENDED, SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
from sshproto.keys import (
    FOREVER,
    KRL,
    AllowedSigners,
    Certificate,
    CertificateKind,
    FileSignature,
    PrivateKey,
    PublicKey,
    SignerRefused,
    allowed_signers,
    read_revoked,
    read_timestamp,
    sshsig,
)
from sshproto.wire.codec import text
from tests.support.authenticator import ED25519, TOUCHED, VERIFIED, Authenticator
from tests.unit.keys.conftest import SSH_KEYGEN

MESSAGE = b"a message"
NOW = 1_700_000_000  # 2023-11-14T22:13:20Z
ALICE = "alice@example.org"
KEY = PrivateKey.generate()
LINE = KEY.public_key.openssh()
OTHER = PrivateKey.generate()
AUTHORITY = PrivateKey.generate()


def certify(**options) -> Certificate:
    settled = {"key_id": "k", "principals": [ALICE], "valid_before": FOREVER, **options}
    kind = settled.pop("kind", CertificateKind.USER)
    return Certificate.issue(settled.pop("authority", AUTHORITY), settled.pop("key", KEY).public_key, kind, **settled)


CERTIFICATE = certify()
BY_KEY = sshsig.sign(KEY, MESSAGE, "file")
BY_CERTIFICATE = sshsig.sign(KEY, MESSAGE, "file", certificate=CERTIFICATE)


class Keygen:
    """ssh-keygen, with a file of allowed signers and a signature."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signers = folder / "signers"
        self.signature = folder / "signature"

    def run(self, *words: object, stdin: bytes = b"", **env: str) -> tuple[bool, str]:
        done = subprocess.run(
            [str(SSH_KEYGEN), "-Y", *map(str, words)], input=stdin, capture_output=True, check=False, timeout=60,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", **env},
        )  # fmt: skip
        return done.returncode == 0, done.stdout.decode("utf-8", "surrogateescape")

    def write(self, content: str | bytes, signature: FileSignature = BY_KEY) -> None:
        self.signers.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        self.signature.write_text(signature.armoured())

    def verify(self, identity: str = ALICE, namespace: str = "file", when: str = "20231114221320Z", **env: str) -> bool:
        return self.run("verify", "-f", self.signers, "-I", identity, "-n", namespace, "-s", self.signature,
                        "-O", f"verify-time={when}", stdin=MESSAGE, **env)[0]  # fmt: skip

    def find(self) -> tuple[str, ...]:
        good, said = self.run("find-principals", "-f", self.signers, "-s", self.signature,
                              "-O", "verify-time=20231114221320Z")  # fmt: skip
        assert good or not said
        return tuple(said.split("\n")[:-1])

    def match(self, identity: str = ALICE) -> tuple[str, ...]:
        good, said = self.run("match-principals", "-f", self.signers, "-I", identity)
        assert good or not said
        return tuple(said.split("\n")[:-1])


@pytest.fixture
def keygen(ssh_keygen, tmp_path) -> Keygen:
    return Keygen(tmp_path)


def verifies(
    content: str | bytes, signature: FileSignature = BY_KEY, identity: str = ALICE, namespace: str = "file", **options
) -> bool:
    try:
        allowed_signers.parse(content).verify(signature, MESSAGE, identity, namespace, now=NOW, **options)
    except (SignerRefused, SignatureInvalid) as error:
        fit_to_show(error, 12_000)
        return False
    return True


def matches(content: str | bytes, identity: str = ALICE) -> tuple[str, ...]:
    try:
        return allowed_signers.parse(content).match_principals(identity)
    except KeyFormatError as error:
        fit_to_show(error, 12_000)
        return ()


def compare(keygen: Keygen, content: str | bytes, signature: FileSignature = BY_KEY, **asked: str) -> bool:
    """Ask both, who have to agree; the result is whether the signature counts."""
    keygen.write(content, signature)
    found = verifies(content, signature, **asked)
    assert found == keygen.verify(**asked), (content, asked)
    signers = allowed_signers.parse(content)
    assert signers.find_principals(signature.signer, now=NOW) == keygen.find(), content
    identity = asked.get("identity", ALICE)
    assert matches(content, identity) == keygen.match(identity), content
    return found


# ----------------------------------------------------------------------------------------------------- the same answers


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("{alice} {key}", True),
        ("{alice} {key} a comment", True),
        ("  \t{alice}\t \t{key}  \t", True),
        ("{alice} {key}\r", True),
        ("{alice} {key} comment\r", True),
        ("bob@example.org,{alice} {key}", True),
        ("*@example.org {key}", True),
        ("a?ice@example.org {key}", True),
        ("* {key}", True),
        ("*,!{alice} {key}", False),
        ("!{alice},* {key}", False),
        ("!bob@example.org {key}", False),
        ("!bob@example.org,* {key}", True),
        ("ALICE@example.org {key}", False),
        ("alice {key}", False),
        ('"{alice}" {key}', True),
        ('"someone else,{alice}" {key}', True),
        ('"{alice}"{key}', True),
        ('al"ice@example.org" {key}', True),
        ('"alice"@example.org {key}', False),
        ('"{alice} {key}', False),
        ('"" {key}', False),
        (", {key}", False),
        (f"{'*' * 1022},x {{key}}", True),
        (f"{'*' * 1023},x {{key}}", False),
        (f"*,{'x' * 1022} {{key}}", True),
        (f"*,{'x' * 1023} {{key}}", False),
        (f"*,!{'x' * 1022} {{key}}", True),
        (f"*,!{'x' * 1023} {{key}}", False),
        (f"!{{alice}},{'x' * 1023},* {{key}}", False),
        (f"{'é' * 511},* {{key}}", True),
        (f"{'é' * 512},* {{key}}", False),
        (",{alice} {key}", True),
        ("{alice},, {key}", True),
        ("{alice}", False),
        ("{alice} ", False),
        ("{key}", False),
        ("# {alice} {key}", False),
        ("{alice} # {key}", False),
        ("{alice} cert-authority {key}", False),
        ('{alice} namespaces="file" {key}', True),
        ('{alice} NameSpaces="file" {key}', True),
        ('{alice} namespaces="email,f*" {key}', True),
        ('{alice} namespaces="*,!file" {key}', False),
        ('{alice} namespaces="email" {key}', False),
        ('{alice} namespaces="" {key}', False),
        ('{alice} namespaces="a \\"b\\" c,file" {key}', True),
        ('{alice} namespaces="a\\b,file" {key}', True),
        ('{alice} namespaces="file\\" {key}', False),
        ("{alice} namespaces=file {key}", False),
        ("{alice} namespaces {key}", False),
        ('{alice} namespaces="file" {key} namespaces="email"', True),
        ('{alice} namespaces="file",namespaces="file" {key}', False),
        ('{alice} namespaces="file"x {key}', False),
        ('{alice} namespaces="file", {key}', False),
        ('{alice} ,namespaces="file" {key}', True),
        ('{alice} ,,namespaces="file",,valid-after="20200101Z" {key}', True),
        ("{alice} , {key}", False),
        ("{alice} no-such-option {key}", False),
        ('{alice} namespaces="file",x="y" {key}', False),
        ('{alice} namespaces="file" valid-after="20200101Z" {key}', False),
        ('{alice} valid-after="20231114221320Z" {key}', True),
        ('{alice} valid-after="20231114221321Z" {key}', False),
        ('{alice} valid-before="20231114221320Z" {key}', True),
        ('{alice} valid-before="20231114221319Z" {key}', False),
        ('{alice} valid-after="202311142213Z",valid-before="202311142214Z" {key}', True),
        ('{alice} valid-before="202311142214Z",valid-after="202311142213Z" {key}', True),
        ('{alice} valid-after="202311142213Z",valid-before="202311142213Z" {key}', False),
        ('{alice} valid-after="20200101Z",valid-after="20200101Z" {key}', False),
        ('{alice} valid-after="20200101z" {key}', True),
        ('{alice} valid-after="20200101UTC" {key}', True),
        ('{alice} valid-after="2020-01-01" {key}', False),
        ('{alice} valid-after="" {key}', False),
        ("{alice} valid-after=20200101Z {key}", False),
        ('{alice} valid-after="19700101Z" {key}', False),
        ('{alice} valid-before="19690101Z" {key}', False),
        ("{alice} ssh-ed25519 AAAA", False),
        ("{alice} ssh-ed25519", False),
        ("{alice} ssh-rsa {blob}", False),
        ("{alice} ssh-foo {blob}", False),
        ("{alice} {certificate}", False),
        ("{alice} cert-authority {authority}", False),
    ],
)  # fmt: skip
def test_a_line_means_what_it_means_to_ssh_keygen(keygen, line, good):
    content = line.format(
        alice=ALICE,
        key=LINE,
        blob=LINE.split()[1],
        certificate=CERTIFICATE.openssh(),
        authority=AUTHORITY.public_key.openssh(),
    )
    assert compare(keygen, content + "\n") == good
    if len(line) < 24:
        assert compare(keygen, content) == good  # without the last line end


CA = AUTHORITY.public_key.openssh()


@pytest.mark.parametrize(
    ("line", "options", "good"),
    [
        (f"{ALICE} cert-authority {CA}", {}, True),
        (f"*@example.org Cert-Authority {CA}", {}, True),
        (f'* cert-authority,namespaces="file" {CA}', {}, True),
        (f'* cert-authority,namespaces="git" {CA}', {}, False),
        (f'* cert-authority,valid-before="20200101Z" {CA}', {}, False),
        (f"* {CA}", {}, False),
        (f"* {LINE}", {}, False),
        (f"* cert-authority {LINE}", {}, False),
        (f"* cert-authority {certify(key=AUTHORITY).openssh()}", {}, True),
        (f"* {CERTIFICATE.openssh()}", {}, True),
        (f"bob {CERTIFICATE.openssh()}", {}, False),
        (f"* cert-authority {CA}", {"principals": ["bob@example.org"]}, False),
        (f"* cert-authority {CA}", {"principals": ["bob@example.org", ALICE, "carol"]}, True),
        (f"*@example.org,c* cert-authority {CA}", {"principals": ["bob@example.org", ALICE, "carol"]}, True),
        (f"bob,{ALICE} cert-authority {CA}", {"principals": [ALICE, "bob"]}, True),
        (f"* cert-authority {CA}", {"valid_before": NOW}, False),
        (f"* cert-authority {CA}", {"valid_before": NOW + 1}, True),
        (f"* cert-authority {CA}", {"valid_after": NOW + 1}, False),
        (f"* cert-authority {CA}", {"valid_after": NOW}, True),
        (f"* cert-authority {CA}", {"kind": CertificateKind.HOST}, False),
        (f"* cert-authority {CA}", {"critical_options": {"force-command": "ls"}}, True),
        (f"* cert-authority {CA}", {"critical_options": {"source-address": "192.0.2.0/24"}}, True),
    ],
    ids=lambda _: "",  # keys in names would be others in each process
)
def test_certificates_count_as_with_ssh_keygen(keygen, line, options, good):
    certificate = certify(**options) if options else CERTIFICATE
    signature = sshsig.sign(KEY, MESSAGE, "file", certificate=certificate)
    assert compare(keygen, line + "\n", signature) == good


def test_the_first_line_that_allows_it_counts(keygen):
    content = "\n".join(
        (
            f'{ALICE} namespaces="email" {LINE}',
            f"{ALICE} nonsense {LINE}",
            f"bob@example.org {LINE}",
            "",
            f'{ALICE},eve valid-after="20200101Z" {LINE}',
            f"{ALICE} {LINE}",
            f"{ALICE} {OTHER.public_key.openssh()}",
        )
    )
    assert compare(keygen, content)
    signers = allowed_signers.parse(content)
    assert [entry.line for entry in signers.entries] == [1, 3, 5, 6, 7]
    assert [line for line, _ in signers.problems] == [2]
    verified = signers.verify(BY_KEY, MESSAGE, ALICE, "file", now=NOW)
    assert (verified.allowed.line, verified.identity, verified.signature) == (5, ALICE, BY_KEY)
    assert signers.check(KEY.public_key, ALICE, "email", now=NOW).line == 1
    with pytest.raises(KeyFormatError, match=r"line 2, which may be about 'alice@example\.org': not an option"):
        signers.match_principals(ALICE)
    assert signers.match_principals("bob@example.org") == ("bob@example.org",)


@pytest.mark.parametrize("seed", range(4))
def test_random_files(keygen, seed):
    """Files of several lines, put together of pieces, some of which are wrong."""
    rng = random.Random(seed)
    certificates = [
        certify(principals=principals, valid_before=before)
        for principals in ([ALICE], ["bob@x.org"], [ALICE, "bob@x.org", "carol"])
        for before in (NOW, FOREVER)
    ]
    signatures = [BY_KEY, *(sshsig.sign(KEY, MESSAGE, "file", certificate=each) for each in certificates)]
    names = [ALICE, ALICE, *"bob@x.org * * *@* *@x.org !bob@x.org carol c?rol !* é ? ??".split(), "d d", ""]
    options = [
        *("", "", "", "cert-authority", "cert-authority", 'namespaces="file"', 'namespaces="git,!file"', "x"),
        *('valid-before="20231114Z"', 'valid-before="20231115Z"', 'valid-after="20231114Z"', 'valid-after="2023"', ","),
    ]
    keys = [LINE, LINE, CA, CA, OTHER.public_key.openssh(), certificates[1].openssh(), "ssh-ed25519 AAAA", "# x", ""]
    good = 0
    for _ in range(30):
        made = []
        for _ in range(rng.randrange(1, 7)):
            principals = ",".join(rng.choices(names, k=rng.randrange(1, 4)))
            if rng.randrange(4) == 0 or " " in principals:
                principals = f'"{principals}"'
            option = ",".join(filter(None, rng.choices(options, k=rng.choice([0, 1, 1, 2]))))
            made.append(" ".join(filter(None, (principals, option, rng.choice(keys), rng.choice(["", "words"])))))
        if rng.randrange(2):
            made += [f"*@example.org {LINE}", f"* cert-authority {CA}"]
        content = rng.choice(["\n", "\r\n", "\n\n#x\n"]).join(made) + rng.choice(["", "\n", "\r"])
        asked = {"identity": rng.choice([ALICE, ALICE, "bob@x.org", "carol", "é"])}
        if rng.randrange(3) == 0:
            asked["namespace"] = rng.choice(["file", "git"])
        good += compare(keygen, content, rng.choice(signatures), **asked)
    assert good  # now and then both say yes


def test_many_lines(keygen):
    blobs = [f"user{n} {OTHER.public_key.openssh()} {n}" for n in range(5000)]
    content = "\n".join([*blobs, f"{ALICE} {LINE}"])
    began = time.process_time()
    signers = allowed_signers.parse(content)
    assert signers.verify(BY_KEY, MESSAGE, ALICE, "file", now=NOW).allowed.line == 5001
    assert time.process_time() - began < 3
    keygen.write(content)
    assert keygen.verify()


# ----------------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns"])
def test_times_without_a_zone_are_local(keygen, monkeypatch, zone):
    """In summer, too, ssh-keygen takes them for standard time."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:

        def local(moment: datetime) -> float:
            return time.mktime((*moment.timetuple()[:8], 0))

        for written in ("202007011200", "20200101", "20201231235959"):
            at = read_timestamp(written, local)
            content = f'{ALICE} valid-after="{written}" {LINE}\n'
            keygen.write(content)
            entry = allowed_signers.parse(content, local=local).entries[0]
            assert entry.valid_after == at
            moments = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(at + more)) for more in (-1, 0)]
            assert [keygen.verify(when=when, TZ=zone) for when in moments] == [False, True]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20200101Z", 1577836800),
        ("20200101", 1577836800),
        ("202001010001Z", 1577836860),
        ("20200101000102z", 1577836862),
        ("20200101000102utc", 1577836862),
        ("20200231Z", 1583107200),  # the second of March
        ("20201231235961Z", 1609459201),
        ("19700101000001Z", 1),
        ("99991231235959Z", 253402300799),
    ],
)
def test_times(written, seconds):
    assert read_timestamp(written) == seconds


@pytest.mark.parametrize(
    "written",
    ["", "Z", "2020", "2020-01-01", "20201301", "20200100", "20200132", "202001012400", "202001010060",
     "20200101000062", "2020010100", "2020010100000", "20200101 ", " 20200101", "20200101ZZ", "20200101+01",
     "00000101Z", "19700101Z", "19691231Z", "-2020101", "2020 1 1", "99991231235961",
     "\uff12\uff10\uff12\uff10\uff10\uff11\uff10\uff11"],
)  # fmt: skip
def test_what_is_no_time(written):
    with pytest.raises(KeyFormatError, match="not a time: "):
        read_timestamp(written)


def test_a_clock_that_does_not_reach():
    def broken(moment: datetime) -> float:
        raise OverflowError

    with pytest.raises(KeyFormatError, match="there is no 20200101"):
        read_timestamp("20200101", broken)


# ----------------------------------------------------------------------------------------------------------- revocation


@pytest.mark.parametrize(
    ("revoked", "by_key", "by_certificate"),
    [
        ("", True, True),
        ("# nothing\n\n", True, True),
        (OTHER.public_key.openssh(), True, True),
        (f"{OTHER.public_key.openssh()}\n\t {LINE}\n", False, False),
        (CERTIFICATE.openssh(), False, False),
        (CA, True, False),
        (f"{LINE}\nnonsense\n", False, False),
        (f"{OTHER.public_key.openssh()}\nnonsense\n", False, False),
        ("ssh-ed25519 AAAA\n", False, False),
        (KRL().encode(), True, True),
        (KRL().revoke(KEY.public_key).encode(), False, False),
        (KRL().revoke(AUTHORITY.public_key).encode(), True, False),
        (KRL().revoke_key_ids(AUTHORITY.public_key, "k").encode(), True, False),
        (KRL().revoke_fingerprints(KEY.public_key.fingerprint()).encode(), False, False),
        (KRL().revoke(KEY.public_key).encode()[:-3], False, False),
    ],
    ids=lambda _: "",  # keys in names would be others in each process
)
def test_revoked_keys_count_as_with_ssh_keygen(keygen, revoked, by_key, by_certificate):
    content = f"{ALICE} {LINE}\n{ALICE} cert-authority {CA}\n"
    data = revoked.encode() if isinstance(revoked, str) else revoked
    (keygen.folder / "revoked").write_bytes(data)
    for signature, good in ((BY_KEY, by_key), (BY_CERTIFICATE, by_certificate)):
        keygen.write(content, signature)
        words = ("verify", "-f", keygen.signers, "-I", ALICE, "-n", "file", "-s", keygen.signature)
        assert keygen.run(*words, "-r", keygen.folder / "revoked", stdin=MESSAGE)[0] == good
        try:
            found = verifies(content, signature, revoked=read_revoked(data))
        except KeyFormatError:
            found = False
        assert found == good


def test_lists_that_ssh_keygen_gives_up(keygen):
    """It accepts nothing then; these lines revoke nobody, so there is no need to."""
    keygen.write(f"{ALICE} {LINE}\n")
    words = ("verify", "-f", keygen.signers, "-I", ALICE, "-n", "file", "-s", keygen.signature)
    unknown = b"ssh-foo " + base64.b64encode(text("ssh-foo") + b"whatever") + b"\n"
    for data in (b"\r\n", b"# x\r\n\r\n", unknown):
        (keygen.folder / "revoked").write_bytes(data)
        assert not keygen.run(*words, "-r", keygen.folder / "revoked", stdin=MESSAGE)[0]
        assert verifies(f"{ALICE} {LINE}\n", revoked=read_revoked(data))


# --------------------------------------------------------------------------------------------- stricter than ssh-keygen


def test_unknown_critical_options_refuse(keygen):
    certificate = certify(critical_options={"only@example.org": "drafts"})
    signature = sshsig.sign(KEY, MESSAGE, "file", certificate=certificate)
    content = f"* cert-authority {CA}\n"
    keygen.write(content, signature)
    assert keygen.verify()
    with pytest.raises(SignerRefused, match=r"critical option 'only@example\.org', which") as caught:
        allowed_signers.parse(content).check(certificate, ALICE, "file", now=NOW)
    assert caught.value.cause == "certificate"
    assert allowed_signers.parse(content).find_principals(certificate, now=NOW) == ()


def test_security_keys_have_to_have_been_touched(keygen):
    token = Authenticator(ED25519)
    content = f"{ALICE} {token.public_key.openssh()}\n"
    request = sshsig.request(token.public_key, MESSAGE, "file")
    signature = request.finish(token.sign(request.data, 0))
    keygen.write(content, signature)
    assert keygen.verify()
    assert not verifies(content, signature)
    assert verifies(content, signature, policy=UNATTENDED)
    touched = request.finish(token.sign(request.data, TOUCHED))
    assert verifies(content, touched)
    assert not verifies(content, touched, policy=SecurityKeyPolicy(user_verification=True))


def test_what_a_certificate_requires_of_the_token():
    token = Authenticator(ED25519)
    certificate = Certificate.issue(
        AUTHORITY, token.public_key, CertificateKind.USER, key_id="k", principals=[ALICE], valid_before=FOREVER,
        critical_options={"verify-required": ""},
    )  # fmt: skip
    content = f"* cert-authority {CA}\n"
    request = sshsig.request(certificate, MESSAGE, "file")
    assert not verifies(content, request.finish(token.sign(request.data, TOUCHED)))
    signature = request.finish(token.sign(request.data, TOUCHED | VERIFIED))
    verified = allowed_signers.parse(content).verify(signature, MESSAGE, ALICE, "file", now=NOW, policy=UNATTENDED)
    assert verified.assertion is not None
    assert verified.assertion.user_verified


def test_what_a_key_in_a_file_cannot_fulfil_refuses(ssh_keygen, tmp_path):
    (tmp_path / "ca").write_bytes(AUTHORITY.openssh())
    (tmp_path / "ca").chmod(0o600)
    (tmp_path / "id.pub").write_text(LINE)
    ssh_keygen("-q", "-s", tmp_path / "ca", "-I", "k", "-n", ALICE, "-O", "verify-required", tmp_path / "id.pub")
    certificate = Certificate.parse((tmp_path / "id-cert.pub").read_bytes())
    signature = sshsig.sign(KEY, MESSAGE, "file", certificate=certificate)
    with pytest.raises(SignerRefused, match="verify-required, which a ssh-ed25519 key cannot fulfil"):
        allowed_signers.parse(f"* cert-authority {CA}").verify(signature, MESSAGE, ALICE, "file", now=NOW)


# --------------------------------------------------------------------------------------------------- what is said of it


def refused(content: str, signer: PublicKey | Certificate = KEY.public_key, **asked) -> SignerRefused:
    settled = {"identity": ALICE, "namespace": "file", "now": NOW, **asked}
    with pytest.raises(SignerRefused) as caught:
        allowed_signers.parse(content).check(signer, settled.pop("identity"), settled.pop("namespace"), **settled)
    return caught.value


def test_why_somebody_is_refused():
    error = refused("")
    assert error.cause == "unknown"
    assert str(error) == (
        f"not an allowed signer: '{ALICE}' with the ssh-ed25519 key {KEY.public_key.fingerprint()}: "
        "no line of 0 is about both"
    )
    error = refused(f'{ALICE} namespaces="git" {LINE}\n{ALICE} valid-before="20200101Z" {LINE}\n')
    assert error.cause == "time"
    assert str(error).endswith(
        "line 1: the key may sign for the namespaces git, not for 'file'; "
        "line 2: the key was valid until 2020-01-01T00:00:00Z, now is 2023-11-14T22:13:20Z"
    )
    assert refused(f'{ALICE} namespaces="git" {LINE}').cause == "namespace"
    assert "not valid before 2030" in str(refused(f'{ALICE} valid-after="20300101Z" {LINE}'))
    revoked = KRL().revoke(KEY.public_key)
    assert refused(f"{ALICE} {LINE}", revoked=revoked).cause == "revoked"
    for wrong, words in (
        (certify(principals=["bob"]), r"is for bob"),
        (certify(kind=CertificateKind.HOST), "is for a host"),
        (certify(valid_before=5), "is valid from 1970-01-01T00:00:00Z to 1970-01-01T00:00:05Z, now is 2023"),
        (certify(valid_after=NOW + 1), "to forever, now is 2023-11-14T22:13:20Z"),
    ):
        error = refused(f"* cert-authority {CA}", wrong)
        assert error.cause == "certificate"
        assert f"line 1: the certificate 'k' (serial 0) {words}" in str(error) or words in str(error)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (ALICE, "the key is missing behind the principals"),
        (f'"{ALICE} {LINE}', "a quote in the principals does not end"),
        (f'{ALICE} namespaces="x {LINE}', "a quote in the options does not end"),
        (f'"" {LINE}', "one without principals"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----x y", "that of a PEM file"),
        (f"{ALICE} cert-authority", "the key is missing behind the principals"),
        (f"{ALICE} ssh-ed25519", "the key is missing behind the principals"),
        (f"{ALICE} ssh-dss AAAA", "DSA is too weak"),
        (f"{ALICE} cert-authority ssh-foo AAAA", "unsupported key type ssh-foo"),
        (f"{ALICE} ssh-rsa {LINE.split()[1]}", "the line says ssh-rsa, the key in it is of type ssh-ed25519"),
        (f"{ALICE} cert-authority,sign {LINE}", "not an option: 'sign'; there are cert-authority"),
        (f"{ALICE} cert-authority, {LINE}", "the options end with a comma"),
        (f'{ALICE} valid-after="x" {LINE}', "valid-after: not a time: 'x'"),
        (f'{ALICE} valid-after="20200101",valid-before="20200101" {LINE}', "is not after valid-after"),
        (f"{ALICE}\0 {LINE}", "nothing follows 'alice@example.org', not even a line end"),
        ("x" * 70000, "a line of 70001 characters; at most 65536"),
    ],
    ids=lambda _: "",  # keys in names would be others in each process
)
def test_lines_that_cannot_be_read(line, words):
    signers = allowed_signers.parse(f"# a comment\n{line}\n{ALICE} {LINE}\n")
    (problem,) = signers.problems
    assert problem[0] == 2
    assert words in problem[1]
    assert len(signers.entries) == 1


def test_whoever_it_is_has_a_name():
    for wrong in ("", "a\0b"):
        with pytest.raises(InvalidArgument, match="not a signer"):
            AllowedSigners().check(KEY.public_key, wrong, "file", now=NOW)


def test_a_signature_that_is_none_is_not_asked_about():
    with pytest.raises(SignatureInvalid, match="does not verify"):
        allowed_signers.parse(f"{ALICE} {LINE}").verify(BY_KEY, b"another", ALICE, "file", now=NOW)


# ------------------------------------------------------------------------------------------------ arbitrary and mutated


FILE = (
    f'# signers\n{ALICE},"b c" namespaces="file,\\"",valid-after="20200101Z" {LINE} words\r\n'
    f"*,!eve cert-authority {CA}\nx {CERTIFICATE.openssh()}\n"
)


def judge(content: bytes) -> None:
    signers = allowed_signers.parse(content)
    count = sum(
        bool(shown) and not shown.startswith(b"#")
        for shown in (line.partition(b"\0")[0].strip(b" \t\r\n") for line in content.split(b"\n"))
    )
    assert len(signers.entries) + len(signers.problems) == count
    for _, words in signers.problems:
        fit_to_show(words, 12_000)
    for signature in (BY_KEY, BY_CERTIFICATE):
        found = verifies(content, signature)
        assert not found or any(
            entry.key in (KEY.public_key, CERTIFICATE, AUTHORITY.public_key) for entry in signers.entries
        )
        assert all(isinstance(each, str) for each in signers.find_principals(signature.signer, now=NOW))
    matches(content)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda each: each.encode("utf-8", "surrogatepass")))
@example(b'"')
@example(b'" "')
def test_arbitrary_files(data):
    judge(data)
    judge(data + LINE.encode())


@settings(max_examples=150)
@given(st.data())
def test_mutated_files(data):
    content = bytearray(FILE.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b",", b" ", b"\\", b"\n", b"=", b"!", b"*", b"\0"])
        )
    judge(bytes(content))
