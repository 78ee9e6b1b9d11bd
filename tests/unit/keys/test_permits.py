"""What a permit allows, and what two of them allow together."""

from __future__ import annotations

import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, SignatureInvalid
from sshproto.keys import FOREVER, Assertion, Certificate, CertificateKind, Permit, PrivateKey

HOSTS = st.sampled_from(["a", "b", "A", "*", "a*", "?", "localhost", "127.0.0.1", "::1", ""])
PORTS = st.sampled_from([None, 1, 22, 65535])
TARGETS = st.none() | st.lists(st.tuples(HOSTS, PORTS), max_size=4).map(tuple)
NAMES = st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("xy")), max_size=3, unique_by=lambda it: it[0])
PERMITS = st.builds(
    Permit,
    force_command=st.sampled_from([None, None, "ls", "id"]),
    environment=NAMES.map(tuple),
    permit_open=TARGETS,
    permit_listen=TARGETS,
    expires=st.none() | st.integers(0, 9),
    tunnel=st.sampled_from([None, 0, "any"]),
    **{
        name: st.booleans()
        for name in (
            *("pty", "user_rc", "port_forwarding", "agent_forwarding", "x11_forwarding"),
            *("touch_required", "verify_required"),
        )
    },
)
PLACES = st.tuples(HOSTS, st.sampled_from([0, 1, 22, 80])) | st.just("/a/path")
ALLOWING = ("pty", "user_rc", "port_forwarding", "agent_forwarding", "x11_forwarding")
DEMANDING = ("touch_required", "verify_required")


@given(PERMITS, PERMITS, PLACES, st.integers(0, 9))
def test_two_permits_allow_no_more_than_each_of_them(one, other, place, now):
    commands = {permit.force_command for permit in (one, other)} - {None}
    if len(commands) > 1:
        with pytest.raises(InvalidArgument, match="two commands are forced that differ"):
            one.narrowed(other)
        return
    both = one.narrowed(other)
    assert {both.force_command} - {None} == commands
    for name in ALLOWING:
        assert getattr(both, name) == (getattr(one, name) and getattr(other, name))
    for name in DEMANDING:
        assert getattr(both, name) == (getattr(one, name) or getattr(other, name))
    assert both.connects(place) == (one.connects(place) and other.connects(place))
    assert not both.listens(place) or (one.listens(place) and other.listens(place))
    assert both.expired(now) == (one.expired(now) or other.expired(now))
    assert dict(both.environment) == {**dict(other.environment), **dict(one.environment)}


@given(PERMITS)
def test_everything_takes_nothing_away(permit):
    everything = Permit(touch_required=False)
    assert everything.narrowed(permit) == permit.narrowed(everything) == permit
    again = permit.narrowed(permit)
    assert attrs.evolve(again, permit_open=permit.permit_open, permit_listen=permit.permit_listen) == permit
    assert pickle.loads(pickle.dumps(permit)) == permit
    assert hash(permit) == hash(attrs.evolve(permit, grounds="other"))


@pytest.mark.parametrize(
    ("these", "those", "common"),
    [
        ((("a", 1), ("b", None)), (("*", 1), ("b", 2)), (("a", 1), ("b", 1), ("b", 2))),
        ((("a", 1),), (("a", 2),), ()),
        ((), None, ()),
    ],
)
def test_connections_that_both_allow(these, those, common):
    assert Permit(permit_open=these).narrowed(Permit(permit_open=those)).permit_open == common


@pytest.mark.parametrize(
    ("these", "those", "common"),
    [
        ((("local*", 1),), (("localhost", None),), (("localhost", 1),)),
        ((("*", 1),), (("a*", None),), (("a*", 1),)),
        ((("a*", None),), (("*b", None),), ()),  # what both cover nobody can say
        ((("a*", None),), (("a*", 2),), (("a*", 2),)),
    ],
)
def test_places_to_listen_that_both_allow(these, those, common):
    assert Permit(permit_listen=these).narrowed(Permit(permit_listen=those)).permit_listen == common


def test_what_a_certificate_permits():
    authority, key = PrivateKey.generate(), PrivateKey.generate().public_key
    told = {"key_id": "id", "principals": ["alice"], "valid_before": FOREVER}
    options = {"critical_options": {"force-command": "ls"}, "extensions": {"permit-pty": "", "permit-user-rc": ""}}
    certificate = Certificate.issue(authority, key, CertificateKind.USER, **told, **options)
    grant = certificate.check(
        CertificateKind.USER, "alice", authorities=[authority.public_key], now=0, enforced=["force-command"]
    )
    expected = Permit(force_command="ls", port_forwarding=False, agent_forwarding=False, x11_forwarding=False)
    assert Permit.of(grant) == expected
    assert Permit.of(grant).grounds == "principal alice"


@pytest.mark.covers("V52")
@pytest.mark.parametrize(
    ("permit", "flags", "problem"),
    [
        (Permit(), 1, ""),
        (Permit(), 4, "without being touched"),
        (Permit(touch_required=False), 0, ""),
        (Permit(verify_required=True), 1, "without a PIN"),
        (Permit(verify_required=True), 5, ""),
    ],
)
def test_what_a_security_key_has_to_show(permit, flags, problem):
    if not problem:
        permit.check_assertion(Assertion(flags, 1))
        return
    with pytest.raises(SignatureInvalid, match=problem):
        permit.check_assertion(Assertion(flags, 1))


def test_values_of_variables_do_not_show():
    assert "hunter2" not in repr(Permit(environment=(("TOKEN", "hunter2"),)))
