"""Cut Wycheproof's files down to what the tests beside this use: python reduce.py WYCHEPROOF/testvectors_v1

What is kept: everything that must be refused, at most MOST of a kind of fault and file, and FEW of each kind of what
must be accepted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

MOST, FEW = 12, 3
SOURCE = Path(sys.argv[1])
HERE = Path(__file__).parent


def cases(name: str, most: int = MOST, few: int = FEW) -> Any:
    """The groups and tests of a file that are kept."""
    seen: Counter[tuple[str, str]] = Counter()
    for group in json.loads((SOURCE / f"{name}_test.json").read_text())["testGroups"]:
        for test in group["tests"]:
            kinds = {(flag, test["result"]) for flag in test["flags"] or ["-"]}
            limit = few if test["result"] == "valid" else most
            if any(seen[kind] < limit for kind in kinds):
                seen.update(kinds)
                yield group, test


def write(name: str, rows: list[Any]) -> None:
    """One test a line."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n")


def exchange(name: str, **limits: int) -> list[Any]:
    return [
        [test["tcId"], test["comment"], test["result"], test["private"], test["public"], test["shared"]]
        for _, test in cases(name, **limits)
    ]


def signatures(name: str, key: str, **limits: int) -> list[Any]:
    """The key stands before the tests that it is for."""
    rows: list[Any] = []
    current: Any = None
    for group, test in cases(name, **limits):
        public = group["publicKey"]
        value = [public["modulus"], public["publicExponent"]] if key == "rsa" else public[key]
        if current != value:
            current = value
            rows.append({"key": value})
        rows.append([test["tcId"], test["comment"], test["result"], test["msg"], test["sig"]])
    return rows


write("x25519", exchange("x25519"))
for bits in (256, 384, 521):
    write(f"ecdh-p{bits}", exchange(f"ecdh_secp{bits}r1_ecpoint"))
write("ed25519", signatures("ed25519", "pk", most=20))
for bits, size in ((256, 256), (384, 384), (521, 512)):
    write(f"ecdsa-p{bits}", signatures(f"ecdsa_secp{bits}r1_sha{size}_p1363", "uncompressed", most=7, few=2))
for size in (256, 512):
    write(f"rsa-sha{size}", signatures(f"rsa_signature_2048_sha{size}", "rsa", most=4, few=1))
for size in (1, 256, 512):
    write(
        f"hmac-sha{size}",
        [
            [test["tcId"], test["comment"], test["result"], test["key"], test["msg"], test["tag"]]
            for group, test in cases(f"hmac_sha{size}", most=200, few=200)
            if group["keySize"] == group["tagSize"] == {1: 160}.get(size, size) and len(test["msg"]) >= 8
        ],
    )
for size in (768, 1024):
    write(
        f"mlkem{size}",
        [
            [test["tcId"], test.get("comment", ""), test["result"], test["ek"]]
            for _, test in cases(f"mlkem_{size}_encaps", most=2, few=0)
        ],
    )
write(
    "mlkem768-decaps",
    [
        [test["tcId"], test.get("comment", ""), test["result"], test["seed"], test["c"], test["K"]]
        for _, test in cases("mlkem_768", most=2, few=1)
    ],
)
