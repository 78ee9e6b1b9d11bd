"""``sshproto pcap check``: what was found, for people, programs and other tools; policies; the exit status."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from sshproto.config import Preferences
from sshproto.replay import findings
from sshproto.replay.events import Side
from sshproto.replay.findings import Policy, Severity
from sshproto.replay.rows import CONNECTION_COLUMNS
from sshproto.weaknesses import WEAK
from sshproto.wire import messages as m
from sshproto_cli.options import Failure
from sshproto_cli.pcap import policy
from sshproto_cli.pcap.catalogue import RULES
from tests.replay.sessions import Scribe, Wire
from tests.support.pair import HOST_KEY
from tests.support.tapes import command, tape
from tests.support.verbs import capture, runner

OLD = Preferences(cipher=("aes256-cbc",), mac=("hmac-sha1",))


@pytest.fixture
def check(capfd, tmp_path):
    return runner("check", capfd, tmp_path)


def attacked(*extras: bytes, sender: Side = Side.DIALLED) -> Wire:
    """A key exchange without the strict form, for ChaCha20-Poly1305; somebody has put messages in before NEWKEYS."""
    wire = []
    for side, message in (
        (Side.DIALLER, m.KexEcdhInit(b"c" * 32)),
        (Side.DIALLED, m.KexEcdhReply(HOST_KEY.public_key.blob, b"s" * 32, b"signature")),
    ):
        kexinit = m.KexInit(
            cookie=side.value.encode().ljust(16, b"."),
            kex_algorithms=("curve25519-sha256",),
            server_host_key_algorithms=("ssh-ed25519",),
            encryption_algorithms_client_to_server=("chacha20-poly1305@openssh.com",),
            encryption_algorithms_server_to_client=("chacha20-poly1305@openssh.com",),
            mac_algorithms_client_to_server=("hmac-sha2-256",),
            mac_algorithms_server_to_client=("hmac-sha2-256",),
            compression_algorithms_client_to_server=("none",),
            compression_algorithms_server_to_client=("none",),
        )
        more = extras if side is sender else ()
        scribe = Scribe(side, b"SSH-2.0-x").send(kexinit.encode(), *more, message.encode(), m.NewKeys().encode())
        wire.append(scribe.piece)
    return wire


IGNORED = attacked(m.Ignore(b"").encode())
TERRAPIN = capture(IGNORED)
ROGUE = capture(attacked(m.UserauthRequest("mallory", "ssh-connection", "none").encode(), sender=Side.DIALLER))


# --------------------------------------------------------------------------------------------------------------- shown


def test_an_attack(check):
    ran = check(TERRAPIN)
    assert (ran.status, ran.err) == (1, [])
    assert ran.out[0].startswith("connection 1, 10.0.0.1:40001 to 10.0.0.2:22, in ")
    assert ran.out[1] == "  critical  terrapin, the server, frame 5 (CVE-2023-48795)"
    assert ran.out[2].startswith("            IGNORE before NEWKEYS, with ChaCha20-Poly1305 and no strict key exchange")
    assert ran.out[-1] == "1 connection: 1 critical, 1 medium"


def test_another(check):
    ran = check(ROGUE)
    assert [line.split()[1].rstrip(",") for line in ran.out if line.startswith("  critical")] == [
        "rogue-session",
        "terrapin",
    ]


def test_nothing_is_wrong(check):
    ran = check(tape(command()))
    assert (ran.status, ran.err) == (0, [])
    assert ran.out[1:] == ["  nothing was found", "", "1 connection: nothing was found"]


def test_nothing_is_known(check):
    """Which is not the same."""
    ran = check(capture([(Side.DIALLER, b"SSH-2.0-x\r\n"), (Side.DIALLED, b"SSH-2.0-y\r\n")]))
    assert ran.out[1] == "  what was negotiated is not known: the recording has no key exchange"
    assert ran.out[-1] == "1 connection: nothing was found; of 1 it is not known what was negotiated"


def test_objects(check):
    second, first = check("--json", tape(command()), capture([], IGNORED)).objects  # each from a port of its own
    assert set(first) == {column.name for column in CONNECTION_COLUMNS}
    terrapin, no_strict_kex = first["findings"]
    assert terrapin.pop("words").startswith("IGNORE before NEWKEYS")
    assert terrapin == {
        "code": "terrapin",
        "severity": "critical",
        "reference": "CVE-2023-48795",
        "frames": [first["frame"] + 4],
        "side": "dialled",
        "role": "server",
    }
    assert (no_strict_kex["code"], no_strict_kex["side"], no_strict_kex["role"]) == ("no-strict-kex", None, None)
    assert (second["findings"], second["severity"]) == ([], None)


def test_only_the_worst_is_shown(check):
    ran = check("--show", "high", TERRAPIN)
    assert [line for line in ran.out if "no-strict-kex" in line] == []
    assert ran.out[-1] == "1 connection: 1 critical, 1 medium"
    (it,) = check("--show", "high", "--json", TERRAPIN).objects
    assert [finding["code"] for finding in it["findings"]] == ["terrapin"]


# --------------------------------------------------------------------------------------------------------------- status


@pytest.mark.parametrize(
    ("severity", "attack", "weak", "good"),
    [("info", 1, 1, 0), ("medium", 1, 1, 0), ("high", 1, 0, 0), ("critical", 1, 0, 0), ("never", 0, 0, 0)],
)
def test_status(check, severity, attack, weak, good):
    for data, status in ((TERRAPIN, attack), (tape(command(preferences=OLD)), weak), (tape(command()), good)):
        assert check("--fail-on", severity, data).status == status
        assert check("--fail-on", severity, "--show", "critical", data).status == status


def test_damage_is_not_what_was_found(check):
    ran = check(TERRAPIN[:-1])
    assert ran.status == 2
    assert "  critical  terrapin, the server, frame 5 (CVE-2023-48795)" in ran.out
    assert len(ran.err) == 1
    assert "the file ends" in ran.err[0]
    assert check("/no/such/file").status == 2
    assert check("--fail-on", "awful", TERRAPIN).status == 2
    assert check("--json", "--sarif", "-", TERRAPIN).err == ["sshproto: --json and --sarif both want standard output"]


# --------------------------------------------------------------------------------------------------------------- policy


GOOD = """
kex = ["curve25519-sha256"]
host_key = ["ssh-ed25519"]
cipher = ["aes256-gcm@openssh.com"]
mac = []
compression = ["none"]
minimum_rsa_bits = 3072
minimum_group_bits = 4096
strict_kex = true
"""


def test_a_policy(check, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    assert policy.load(str(path)) == Policy(
        kex=("curve25519-sha256",),
        host_key=("ssh-ed25519",),
        cipher=("aes256-gcm@openssh.com",),
        mac=(),
        compression=("none",),
        minimum_rsa_bits=3072,
        minimum_group_bits=4096,
        strict_kex=True,
    )
    ran = check("--policy", path, TERRAPIN)
    breaches = [line for line in ran.out if line.startswith("  high      policy")]
    assert [re.search(r"\((.*)\)", line)[1] for line in breaches] == [
        "policy: cipher",
        "policy: cipher",
        "policy: strict_kex",
    ]
    path.write_text('compression = ["zlib@openssh.com"]')
    assert check("--policy", path, tape(command())).status == 1
    path.write_text('compression = ["none"]')
    assert check("--policy", path, tape(command())).status == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kex = ", "no TOML: Invalid value (at end of document)"),
        ('ciphers = ["aes128-ctr"]', "unknown key 'ciphers'; known are kex, host_key, cipher, mac, compression, min"),
        ("[expected]\nkex = []", "unknown key 'expected'; known are"),
        ('kex = "curve25519-sha256"', "kex: expected an array of names, not a string"),
        ('mac = ["hmac-sha2-256", 1]', "mac: expected an array of names, not an array with a whole number in it"),
        ('mac = ["a,b"]', "mac: expected an array of names, not an array with 'a,b' in it, which no algorithm is"),
        ("minimum_rsa_bits = 3072.0", "minimum_rsa_bits: expected a whole number of bits from 1 to 65536, not a float"),
        ("minimum_rsa_bits = true", "minimum_rsa_bits: expected a whole number of bits from 1 to 65536, not a boolean"),
        ("minimum_group_bits = 0", "minimum_group_bits: expected a whole number of bits from 1 to 65536, not 0"),
        ("strict_kex = 1", "strict_kex: expected true or false, not a whole number"),
        ("strict_kex = 2026-01-01", "strict_kex: expected true or false, not a date or time"),
    ],
)
def test_what_is_no_policy(check, tmp_path, text, words):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    ran = check("--policy", path, TERRAPIN)
    assert (ran.status, ran.out, len(ran.err)) == (2, [], 1)
    assert ran.err[0].startswith(f"sshproto: policy {path}: {words}")


def test_no_policy_at_all(tmp_path):
    with pytest.raises(Failure, match="No such file"):
        policy.load(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(Failure, match="no TOML"):
        policy.load(str(tmp_path / "bytes"))


# ---------------------------------------------------------------------------------------------------------------- SARIF


def test_sarif(check, tmp_path):
    """What the schema of version 2.1.0 demands of what we write; the whole of it needs a validator."""
    target = tmp_path / "out.sarif"
    ran = check("--sarif", target, TERRAPIN)
    assert ran.status == 1
    assert ran.out[-1] == "1 connection: 1 critical, 1 medium"
    report = json.loads(target.read_text())
    assert report["version"] == "2.1.0"
    assert report["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = report["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    for rule in rules:
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["defaultConfiguration"]["level"] in ("note", "warning", "error")
        assert 0 <= float(rule["properties"]["security-severity"]) <= 10
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]
    first, second = run["results"]
    assert rules[first["ruleIndex"]]["id"] == first["ruleId"] == "terrapin"
    assert (first["level"], second["level"]) == ("error", "warning")
    assert first["message"]["text"].startswith("IGNORE before NEWKEYS")
    (place,) = first["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == (tmp_path / "2.pcap").as_uri()
    assert place["logicalLocations"][0]["name"] == "connection 1"
    assert first["properties"]["frames"] == [5]
    again = json.loads("\n".join(check("--sarif", "-", TERRAPIN).out))
    marks = [[it["partialFingerprints"] for it in each["runs"][0]["results"]] for each in (report, again)]
    assert marks[0] == marks[1]
    assert marks[0][0] != marks[0][1]


def test_sarif_of_what_could_not_be_read(check):
    ran = check("--sarif", "-", TERRAPIN[:-1])
    assert ran.status == 2
    (run,) = json.loads("\n".join(ran.out))["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "the file ends" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    assert [it["ruleId"] for it in run["results"]] == ["terrapin", "no-strict-kex"]


# ------------------------------------------------------------------------------------------------------------ catalogue


_RULE = re.compile(
    r"^### `([a-z0-9-]+)`\n\n\*([^*]+)\* · ([a-z, ]+) · ([^\n]+)\n\n(.*?)\n(?=\n#|\Z)", re.MULTILINE | re.DOTALL
)
"""How the page has a rule: code, title, severities, references, meaning."""


def test_every_code_has_a_rule():
    """The codes that the findings' source has, and no others."""
    tree = ast.parse(Path(findings.__file__).read_text())
    codes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_find":
            codes |= texts(node.args[0])
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
            value = node.value
            for each in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                codes |= texts(each)
    assert codes - {"weak-"} | {"weak-kex", "weak-cipher", "weak-mac"} == set(RULES)


def texts(node):
    """The literals in an expression."""
    return {str(it.value) for it in ast.walk(node) if isinstance(it, ast.Constant)}


def test_the_page_has_every_rule(checkout):
    text = (checkout / "docs/reference/findings.md").read_text()
    found = _RULE.findall(text)
    shown = {
        code: (title, severities, references, " ".join(meaning.split()))
        for code, title, severities, references, meaning in found
    }
    expected = {
        code: (
            rule.title,
            ", ".join(each.value for each in rule.severities),
            ", ".join(rule.references),
            rule.meaning,
        )
        for code, rule in RULES.items()
    }
    assert shown == expected
    assert list(shown) == list(expected)


def test_severities_stand_in_order():
    order = list(Severity)
    for rule in RULES.values():
        assert list(rule.severities) == sorted(set(rule.severities), key=order.index)


@pytest.mark.parametrize("category", ["kex", "cipher", "mac"])
def test_whatever_is_weak_has_a_severity_of_its_rule(category):
    for _, reason in WEAK[category]:
        assert findings._severity(reason) in RULES[f"weak-{category}"].severities, reason
