"""What a login may do, as a handler says it and the server sees to it."""

from __future__ import annotations

import pytest

from sshproto.channels.requests import AuthAgentRequest, Env, PtyRequest, Session, Shell, Subsystem, X11Request
from sshproto.config import ClientConfig, SecurityKeyPolicy, ServerConfig
from sshproto.errors import AuthExhausted, OpenRefused, RequestRefused
from sshproto.keys import FOREVER, AuthorizedKeys, Certificate, CertificateKind, LoginRefused, Permit, PrivateKey
from sshproto.operations.forwarding import listen, open_to
from sshproto.operations.login import LoginPlan, log_in
from sshproto.operations.serving import Partial
from sshproto.operations.session import run, start
from tests.support.authenticator import Authenticator
from tests.support.pair import HOST_KEY, USER_KEY
from tests.support.running import QUICK, Host, Scene, trust

AUTHORITY = PrivateKey.generate()
CERTIFICATE = Certificate.issue(
    AUTHORITY,
    USER_KEY.public_key,
    CertificateKind.USER,
    key_id="alice's",
    principals=["alice"],
    valid_before=FOREVER,
    critical_options={"force-command": "show"},
)


class Door(Host):
    """Lets in with what it is told, and shows what a program is run with.

    Attributes:
        verdict: The answer to a key; of several, one for each step.
        asked: What was asked besides.
    """

    def __init__(self, *verdicts):
        super().__init__()
        self.verdicts = list(verdicts)
        self.asked = []

    def public_key(self, user, key):
        return self.verdicts[0]

    def password(self, user, password, new_password):
        return self.verdicts[1]

    def certificate(self, user, certificate):
        try:
            return AuthorizedKeys().authorize(
                certificate, user, now=1_800_000_000, authorities=[AUTHORITY.public_key], address="10.0.0.1"
            )
        except LoginRefused as refusal:
            self.asked.append(str(refusal))
            return False

    def allow_pty(self, session, request):
        self.asked.append("pty")
        return True

    def allow_env(self, session, name, value):
        self.asked.append(f"env {name}")
        return True

    def allow_agent(self, session):
        self.asked.append("agent")
        return True

    def allow_x11(self, session, request):
        self.asked.append("x11")
        return True

    def allow_connect(self, target, origin):
        self.asked.append(f"connect {target}")
        return False

    def allow_listen(self, address):
        self.asked.append(f"listen {address}")
        return False

    def session(self, session):
        words = [repr(session.program), *(f"{name}={value}" for name, value in session.provided.items())]
        words += [f"env {name}={value.decode()}" for name, value in session.env.items()]
        yield from session.channel.write("\n".join(words).encode("utf-8", "surrogateescape"))
        return 0


def enter(*verdicts, plan=None, **server):
    """A client that has logged in at a Door."""
    config = ServerConfig(**{"host_keys": (HOST_KEY,), "debug_raise": True, "preferences": QUICK, **server})
    scene = Scene(ClientConfig(user="alice", debug_raise=True, preferences=QUICK), config).serve(Door(*verdicts))
    scene.client.perform(log_in(scene.client.hub, trust, plan or LoginPlan([USER_KEY])))
    scene.settle()
    return scene


def shown(scene, program, **session):
    """What a program of the Door's says."""
    channel = scene.client.perform(start(scene.client.hub, program, **session))
    return scene.client.perform(channel.read_all()).decode("utf-8", "surrogateescape").split("\n")


def requested(scene, request):
    """Whether a session is granted a request."""
    channel = scene.client.perform(scene.client.hub.open_channel(Session()))
    granted = scene.client.perform(channel.request(request))
    channel.close()
    return granted


# ------------------------------------------------------------------------------------------------------ forced commands


def test_a_forced_command_is_run_whatever_is_asked_for():
    scene = enter(Permit(force_command="show é\udcff"))
    forced = "Exec(command=b'show \\xc3\\xa9\\xff')"
    completed = scene.client.perform(run(scene.client.hub, b"rm -rf \xff"))
    words = completed.stdout.decode("utf-8", "surrogateescape").split("\n")
    assert words == [forced, "SSH_ORIGINAL_COMMAND=rm -rf \udcff"]
    assert shown(scene, Shell()) == [forced]
    assert shown(scene, Subsystem("sftp")) == [forced, "SSH_ORIGINAL_COMMAND=sftp"]


def test_what_was_asked_for_is_not_for_the_client_to_say():
    scene = enter(Permit(force_command="show"))
    assert shown(scene, Shell(), env={"SSH_ORIGINAL_COMMAND": "x", "LANG": "C"}) == [
        "Exec(command=b'show')",
        "env LANG=C",
    ]
    assert scene.handler.asked == ["env LANG"]
    scene = enter(True)  # where nothing is forced it is a name like others
    assert shown(scene, Shell(), env={"SSH_ORIGINAL_COMMAND": "x"})[1:] == ["env SSH_ORIGINAL_COMMAND=x"]


def test_a_second_program_is_forced_as_the_first_that_was_refused():
    class Choosy(Door):
        def allow_program(self, session):
            self.asked.append((session.program, dict(session.provided)))
            return len(self.asked) > 1

    scene = Scene(server=ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK))
    scene.serve(Choosy(Permit(force_command="show"))).login()
    channel = scene.client.perform(scene.client.hub.open_channel(Session()))
    assert not scene.client.perform(channel.request(Subsystem("sftp")))
    assert scene.client.perform(channel.request(Shell()))
    (_, first), (_, second) = scene.handler.asked
    assert first == {"SSH_ORIGINAL_COMMAND": "sftp"}
    assert second == {}


def test_variables_of_a_permit_go_before_the_client_s():
    scene = enter(Permit(environment=(("A", "1"), ("B", ""))))
    assert shown(scene, Shell(), env={"A": "2", "C": "3"})[1:] == ["A=1", "B=", "env C=3"]
    assert scene.handler.asked == ["env C"]


# ---------------------------------------------------------------------------------------------------------- what is not


@pytest.mark.covers("V77")
@pytest.mark.parametrize(
    ("permit", "request_", "asked"),
    [
        (Permit(pty=False), PtyRequest("vt100"), "pty"),
        (Permit(agent_forwarding=False), AuthAgentRequest(), "agent"),
        (Permit(x11_forwarding=False), X11Request(False, "MIT-MAGIC-COOKIE-1", "00" * 16, 0), "x11"),
        (Permit(environment=(("A", "1"),)), Env("A", b"2"), "env A"),
    ],
)
def test_what_is_not_permitted_is_refused_without_a_question(permit, request_, asked):
    scene = enter(permit)
    assert not requested(scene, request_)
    assert scene.handler.asked == []
    scene = enter(True)
    requested(scene, request_)
    assert scene.handler.asked == [asked]


@pytest.mark.covers("V77")
@pytest.mark.parametrize(
    ("permit", "allowed", "refused"),
    [
        (Permit(), [("a", 1), "/path"], []),
        (Permit(port_forwarding=False), [], [("a", 1), "/path"]),
        (Permit(port_forwarding=False, permit_open=(("a", 1),)), [], [("a", 1)]),
        (Permit(permit_open=(("a", 1), ("b", None))), [("a", 1), ("b", 7)], [("a", 2), ("c", 1), ("A", 1), "/path"]),
        (Permit(permit_open=(("*", 1),)), [("c", 1)], [("c", 2)]),
        (Permit(permit_open=()), [], [("a", 1)]),
    ],
)
def test_where_connections_may_lead_to(permit, allowed, refused):
    scene = enter(permit)
    for target in (*allowed, *refused):
        with pytest.raises(OpenRefused):  # the Door refuses whom it is asked about
            scene.client.perform(open_to(scene.client.hub, target))
    assert scene.handler.asked == [f"connect {target}" for target in allowed]


@pytest.mark.parametrize(
    ("permit", "allowed", "refused"),
    [
        (Permit(), [("", 0), "/path"], []),
        (Permit(port_forwarding=False), [], [("", 1), "/path"]),
        (
            Permit(permit_listen=(("localhost", 80), ("*.x", None))),
            [("localhost", 80), ("a.X", 9)],
            [("", 80), "/path"],
        ),
        (Permit(permit_listen=(("*", 80),)), [("", 80), ("::1", 80)], [("", 0), ("", 81)]),
        (Permit(permit_listen=(("*", None),)), [("", 0)], []),
        (Permit(permit_open=(("a", 1),)), [("a", 2)], []),  # that is about something else
    ],
)
def test_where_may_be_listened(permit, allowed, refused):
    scene = enter(permit)
    for address in (*allowed, *refused):
        with pytest.raises(RequestRefused):
            scene.client.perform(listen(scene.client.hub, address))
    assert scene.handler.asked == [f"listen {address}" for address in allowed]


def test_the_permit_is_to_be_seen():
    seen = []

    class Curious(Door):
        def session(self, session):
            seen.append(session.permit)
            return 0

    scene = Scene(server=ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK))
    scene.serve(Curious(Permit(tunnel=3))).login()
    scene.client.perform(run(scene.client.hub, "x"))
    assert seen == [Permit(tunnel=3)]


# ---------------------------------------------------------------------------------------------------------------- login


def refused(*verdicts, plan=None, **server):
    with pytest.raises(AuthExhausted):
        enter(*verdicts, plan=plan, **server)


def test_an_expired_permit_lets_nobody_in():
    refused(Permit(expires=1_799_999_999.0))  # it is later in the memory's world
    assert enter(Permit(expires=1_800_000_000.0))


def test_several_steps_allow_what_each_of_them_does():
    methods = ("publickey", "password")
    plan = {"plan": LoginPlan([USER_KEY], password="x"), "auth_methods": methods}
    first = Partial(("password",), Permit(pty=False, environment=(("A", "1"),)))
    scene = enter(first, Permit(force_command="show", environment=(("A", "2"), ("B", "3"))), **plan)
    assert not requested(scene, PtyRequest("vt100"))
    assert sorted(shown(scene, Shell())) == ["A=1", "B=3", "Exec(command=b'show')"]
    plan = {"plan": LoginPlan([USER_KEY], password="x"), "auth_methods": methods}
    scene = enter(first, True, **plan)
    assert not requested(scene, PtyRequest("vt100"))
    plan = {"plan": LoginPlan([USER_KEY], password="x"), "auth_methods": methods}
    refused(Partial(("password",), Permit(force_command="a")), Permit(force_command="b"), **plan)


@pytest.mark.covers("V52")
@pytest.mark.parametrize(
    ("permit", "flags", "good"),
    [
        (Permit(), 1, True),
        (Permit(), 0, False),
        (Permit(touch_required=False), 0, True),
        (Permit(verify_required=True), 1, False),
        (Permit(verify_required=True), 5, True),
        (True, 0, True),
        (Partial(("password",), Permit()), 0, False),
        (Partial(("password",)), 0, None),
    ],
)
def test_what_a_security_key_has_to_show(permit, flags, good):
    token = Authenticator()
    policy = SecurityKeyPolicy(user_presence=False)
    plan = LoginPlan([token.public_key], signer=lambda question: token.sign(question.data, flags))
    if good is None:  # good, but not enough
        plan = LoginPlan([token.public_key], signer=lambda question: token.sign(question.data, flags), password="x")
        assert enter(permit, True, plan=plan, security_keys=policy, auth_methods=("publickey", "password"))
    elif good:
        assert enter(permit, plan=plan, security_keys=policy)
    else:
        refused(permit, plan=plan, security_keys=policy)


def test_a_certificate_has_a_question_of_its_own():
    plan = LoginPlan([(USER_KEY, CERTIFICATE)])
    scene = enter(False, plan=plan)
    assert shown(scene, Shell()) == ["Exec(command=b'show')"]
    assert not requested(enter(False, plan=LoginPlan([(USER_KEY, CERTIFICATE)])), Env("SSH_ORIGINAL_COMMAND", b"x"))
    # Whoever knows nothing of certificates lets nobody in by one, even if the key itself would do.
    scene = Scene().serve(Host())
    with pytest.raises(AuthExhausted):
        scene.login(LoginPlan([(USER_KEY, CERTIFICATE)]))
    assert Scene().serve(Host()).login(LoginPlan([(USER_KEY, CERTIFICATE), USER_KEY]))


def test_an_agent_signs_for_a_certificate():
    seen = []

    def sign(question):
        seen.append(question)
        return USER_KEY.sign(question.data, question.algorithm)

    scene = enter(False, plan=LoginPlan([(USER_KEY.public_key, CERTIFICATE)], signer=sign))
    assert shown(scene, Shell()) == ["Exec(command=b'show')"]
    (question,) = seen
    assert (question.key, question.certificate) == (USER_KEY.public_key, CERTIFICATE)
    assert question.algorithm == "ssh-ed25519"
    assert b"ssh-ed25519-cert-v01@openssh.com" in question.data
