"""What is thought of algorithms: remembered, since the same names come all the time, but not without bound."""

from __future__ import annotations

import pytest

from sshproto import weaknesses
from sshproto.weaknesses import Standing, judge


@pytest.mark.parametrize(
    ("category", "name", "standing"),
    [
        ("cipher", "aes256-ctr", Standing.SOUND),
        ("cipher", "3des-cbc", Standing.WEAK),
        ("kex", "kex-strict-s-v00@openssh.com", Standing.MARKER),
        ("mac", "hmac-md5", Standing.WEAK),
        ("mac", "hmac-new@example.org", Standing.UNKNOWN),
    ],
)
def test_the_same_twice(category: str, name: str, standing: Standing) -> None:
    first = judge(category, name)
    assert first.standing is standing
    assert judge(category, name) == first
    assert judge(category, name).reason == first.reason


def test_a_name_is_judged_in_its_category() -> None:
    assert judge("mac", "none").reason != judge("compression", "none").reason
    assert judge("compression", "none").standing is Standing.SOUND


def test_long_names_are_not_remembered() -> None:
    before = weaknesses._judge.cache_info().currsize
    for number in range(10):
        assert judge("cipher", f"{number}{'x' * 64}").standing is Standing.UNKNOWN
    assert judge("cipher", f"{'x' * 60}-cbc").standing is judge("cipher", f"{'x' * 61}-cbc").standing
    assert weaknesses._judge.cache_info().currsize <= before + 1
    assert weaknesses._judge.cache_info().maxsize == 4096
