"""Logging in: a plan of credentials at one end, a handler at the other, and whose key it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import attrs
import pytest

from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.errors import (
    AuthExhausted,
    ConnectionLoss,
    HostKeyChanged,
    HostKeyRejected,
    HostKeyRevoked,
    HostKeyUnknown,
    InvalidArgument,
    PeerDisconnected,
    UnexpectedEof,
)
from sshproto.events import HostKeyOffered, Prompt
from sshproto.keys import FOREVER, Certificate, CertificateKind, known_hosts
from sshproto.keys.private import PrivateKey
from sshproto.operations.host_keys import host_key_check
from sshproto.operations.login import LoginPlan, log_in
from sshproto.operations.serving import Challenge, ChangePassword, Partial
from sshproto.operations.session import run
from sshproto.operations.steps import Sleep, Wait
from sshproto.transport.link import Phase
from tests.support.pair import HOST_KEY
from tests.support.running import QUICK, Host, Scene, trust

KEYS = [PrivateKey.generate("ssh-ed25519") for _ in range(3)]
METHODS = ("publickey", "password", "keyboard-interactive")


class Door(Host):
    """Lets in who has done all that is needed, in this order.

    Attributes:
        needs: Methods, in order; the first attempt may be any that is right.
        keys, secret, codes: What is right.
        seen: What was asked, in order.
    """

    def __init__(self, *needs, keys=KEYS[:1], secret="sesame", codes=("1234",)):
        super().__init__()
        self.needs = list(needs)
        self.keys = [key.public_key for key in keys]
        self.secret = secret
        self.codes = list(codes)
        self.seen = []
        self.users = []

    def passed(self, method):
        if self.needs and self.needs[0] == method:
            self.needs.pop(0)
            return Partial((self.needs[0],)) if self.needs else True
        return False

    def public_key(self, user, key):
        self.seen.append("publickey")
        return key in self.keys and self.passed("publickey")

    def password(self, user, password, new_password):
        self.seen.append(f"password {password}")
        return password == self.secret and self.passed("password")

    def keyboard_interactive(self, user, answers):
        if answers is None:
            return Challenge([(f"Code {number}: ", False) for number in range(len(self.codes))], "Door", "Who is it?")
        self.seen.append(f"answers {' '.join(answers)}")
        return list(answers) == self.codes and self.passed("keyboard-interactive")

    def logged_in(self, user):
        self.users.append(user)


def meet(door, plan, *, host_key=trust, slow=False, **server):
    """A client with ``plan`` comes to ``door``: the scene, and the client's task."""
    config = ServerConfig(
        **{"host_keys": (HOST_KEY,), "debug_raise": True, "preferences": QUICK, "auth_methods": METHODS, **server}
    )
    scene = Scene(ClientConfig(user="alice", debug_raise=True, preferences=QUICK), config).serve(door)
    task = scene.client.begin(log_in(scene.client.hub, host_key, plan))
    if not slow:
        scene.run(lambda: task.done, 60.0)
        scene.settle()
        assert task.done
    return scene, task


def is_in(scene, task):
    """The client is in, and what it came for works."""
    assert task.value() is None
    assert scene.client.conn.phase is scene.server.conn.phase is Phase.OPEN
    assert scene.client.conn.questions == scene.server.conn.questions == ()
    assert scene.client.perform(run(scene.client.hub, "echo in")).stdout == b"in\n"
    assert scene.bugs == []
    return True


def refused(task):
    """The client is not in: why."""
    with pytest.raises(AuthExhausted) as caught:
        task.value()
    return caught.value


# ----------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("position", range(3))
def test_the_keys_are_tried_in_order(position):
    door = Door("publickey", keys=[KEYS[position]])
    scene, task = meet(door, LoginPlan(KEYS))
    assert is_in(scene, task)
    assert door.seen == ["publickey"] * (position + 1)
    assert door.users == ["alice"]


class Probed(Door):
    """The answer to whether a key would do has no effect."""

    def public_key(self, user, key):
        self.seen.append("publickey")
        return key in self.keys


def test_for_a_public_key_the_signer_signs():
    asked = []

    def sign(question):
        asked.append(question.key)
        return KEYS[0].sign(question.data, question.algorithm)

    door = Probed()
    scene, task = meet(door, LoginPlan([KEYS[0].public_key], signer=sign))
    assert is_in(scene, task)
    assert asked == [KEYS[0].public_key]
    assert door.seen == ["publickey", "publickey"]  # would it do; it has signed


@pytest.mark.parametrize(
    "signature", [None, b"", b"rubbish", KEYS[1].sign(b"other", "ssh-ed25519"), "text"], ids=range(5)
)
def test_a_signer_that_cannot_is_passed_over(signature):
    door = Door("password", keys=[KEYS[0]])
    door.public_key = lambda user, key: True
    plan = LoginPlan([KEYS[0].public_key], signer=lambda question: signature, password="sesame")
    scene, task = meet(door, plan)
    assert is_in(scene, task)


def test_a_key_without_a_signer_is_passed_over():
    door = Probed()
    scene, task = meet(door, LoginPlan([KEYS[1].public_key, KEYS[0]]))
    assert is_in(scene, task)
    assert door.seen == ["publickey"]


def test_a_key_that_makes_no_signature_that_the_server_takes_is_passed_over():
    other = PrivateKey.generate("ecdsa-sha2-nistp256")
    door = Door("publickey", keys=[other])
    preferences = attrs.evolve(QUICK, signature=("ecdsa-sha2-nistp256",))
    scene, task = meet(door, LoginPlan([KEYS[0], other]), preferences=preferences, host_keys=(other,), host_key=yes)
    assert is_in(scene, task)
    assert door.seen == ["publickey"]


def yes(question):
    return True


# ------------------------------------------------------------------------------------------------------------ passwords


def slowly(value):
    """A function of the application that takes a while."""

    def get(*args):
        yield Sleep(5.0)
        return value

    return get


@pytest.mark.parametrize("password", ["sesame", lambda: "sesame", slowly("sesame")])
def test_a_password_may_be_got_when_it_is_needed(password):
    door = Door("password")
    scene, task = meet(door, LoginPlan(password=password))
    assert is_in(scene, task)
    assert door.seen == ["password sesame"]


def test_a_password_that_is_not_needed_is_not_asked_for():
    def never():
        raise AssertionError("nobody needs it")

    scene, task = meet(Door("publickey"), LoginPlan(KEYS[:1], password=never))
    assert is_in(scene, task)


def test_a_password_is_asked_for_once():
    asked = []

    def ask():
        asked.append(True)
        return "wrong"

    door = Door("password", codes=["1"])
    _, task = meet(door, LoginPlan(password=ask))
    error = refused(task)
    assert asked == [True]
    assert door.seen == ["password wrong", "answers wrong"]
    assert error.tried == ("none", "password", "keyboard-interactive")
    assert error.methods == METHODS


def test_who_has_no_password_can_still_answer_prompts():
    asked = []
    door = Door("keyboard-interactive")
    plan = LoginPlan(password=lambda: asked.append(True), prompts=lambda question: ["1234"])
    scene, task = meet(door, plan)
    assert is_in(scene, task)
    assert asked == [True]
    assert door.seen == ["answers 1234"]


def test_who_has_no_password_is_asked_once_and_offers_none():
    asked = []
    door = Door("password")
    _, task = meet(door, LoginPlan(password=lambda: asked.append(True)))
    assert refused(task).tried == ("none",)
    assert asked == [True]
    assert door.seen == []


@pytest.mark.parametrize("password", ["x" * 40_000, "\ud800"])
def test_a_password_that_cannot_be_sent_is_the_callers_mistake(password):
    scene, task = meet(Door("password"), LoginPlan(password=password))
    with pytest.raises(InvalidArgument):
        task.value()
    assert isinstance(scene.client.hub.lost, AuthExhausted)


class Expired(Door):
    """A door whose password has expired, and which takes only some new ones."""

    def __init__(self, *needs, good=("open",), **kwargs):
        super().__init__(*needs, **kwargs)
        self.good = good

    def password(self, user, password, new_password):
        self.seen.append(f"password {password} {new_password}")
        if password != self.secret:
            return False
        if new_password not in self.good:
            return ChangePassword("A new one, please.")
        self.secret = new_password
        self.codes = [new_password]
        return self.passed("password")


def test_an_expired_password_is_changed():
    prompts = []

    def new(question):
        prompts.append(question.prompt)
        return "open"

    door = Expired("password")
    scene, task = meet(door, LoginPlan(password="sesame", new_password=new))
    assert is_in(scene, task)
    assert door.seen == ["password sesame None", "password sesame open"]
    assert prompts == ["A new one, please."]


def test_a_new_password_that_will_not_do_is_asked_for_again():
    """And the old one is still the old one."""
    new = iter(["weak", "weaker", "open"])
    door = Expired("password")
    scene, task = meet(door, LoginPlan(password="sesame", new_password=lambda _: next(new)))
    assert is_in(scene, task)
    assert door.seen == ["password sesame None", *(f"password sesame {word}" for word in ("weak", "weaker", "open"))]


def test_after_the_change_the_new_password_is_the_password():
    door = Expired("password", "keyboard-interactive")
    scene, task = meet(door, LoginPlan(password="sesame", new_password=slowly("open")))
    assert is_in(scene, task)
    assert door.seen[-1] == "answers open"


def test_a_change_that_has_failed_has_changed_nothing():
    class Refusing(Expired):
        def password(self, user, password, new_password):
            verdict = super().password(user, password, new_password)
            return False if new_password else verdict

    door = Refusing("keyboard-interactive", codes=["sesame"], good=())
    scene, task = meet(door, LoginPlan(password="sesame", new_password=lambda _: "open"))
    assert is_in(scene, task)
    assert door.seen[-1] == "answers sesame"


@pytest.mark.parametrize("new", [None, lambda question: None])
def test_who_has_no_new_password_is_not_in(new):
    scene, task = meet(Expired("password"), LoginPlan(password="sesame", new_password=new))
    assert "nothing is left to try" in str(refused(task))
    assert scene.server.hub.lost is not None


# -------------------------------------------------------------------------------------------------------------- prompts


def test_prompts_are_answered_as_often_as_they_come():
    class Rounds(Door):
        def keyboard_interactive(self, user, answers):
            self.seen.append(answers)
            return [Challenge([("One: ", True), ("Two: ", False)]), Challenge([]), Challenge([("?", True)]), True][
                len(self.seen) - 1
            ]

    shown = []

    def answer(question):
        shown.append((question.name, question.instruction, [prompt.text for prompt in question.prompts]))
        return [prompt.text.upper() for prompt in question.prompts]

    door = Rounds()
    scene, task = meet(door, LoginPlan(prompts=answer))
    assert is_in(scene, task)
    assert door.seen == [None, ("ONE: ", "TWO: "), (), ("?",)]
    assert [texts for _, _, texts in shown] == [["One: ", "Two: "], [], ["?"]]


def test_prompts_show_what_the_server_says():
    shown = []
    door = Door("keyboard-interactive")
    scene, task = meet(door, LoginPlan(prompts=lambda question: shown.append(question) or ["1234"]))
    assert is_in(scene, task)
    assert (shown[0].name, shown[0].instruction) == ("Door", "Who is it?")
    assert shown[0].prompts == (Prompt(text="Code 0: ", echo=False),)


def test_a_password_is_the_answer_to_a_single_hidden_prompt():
    door = Door("keyboard-interactive", codes=["sesame"])
    scene, task = meet(door, LoginPlan(password="sesame"), auth_methods=("keyboard-interactive",))
    assert is_in(scene, task)
    assert door.seen == ["answers sesame"]


@pytest.mark.parametrize("prompts", [[("Name: ", True)], [("One: ", False), ("Two: ", False)]])
def test_a_password_is_no_answer_to_any_other_prompt(prompts):
    class Curious(Door):
        def keyboard_interactive(self, user, answers):
            self.seen.append(answers)
            return Challenge(prompts)

    door = Curious()
    _, task = meet(door, LoginPlan(password="sesame"), auth_methods=("keyboard-interactive",))
    refused(task)
    assert door.seen == [None]


def test_nobody_is_asked_nothing():
    class Silent(Door):
        def keyboard_interactive(self, user, answers):
            return Challenge([]) if answers is None else True

    scene, task = meet(Silent(), LoginPlan(password="sesame"), auth_methods=("keyboard-interactive",))
    assert is_in(scene, task)


def test_who_does_not_answer_is_not_in():
    _, task = meet(Door("keyboard-interactive"), LoginPlan(prompts=lambda question: None))
    assert refused(task).tried == ("none", "keyboard-interactive")


def test_as_many_answers_as_prompts():
    scene, task = meet(Door("keyboard-interactive"), LoginPlan(prompts=lambda question: ["1", "2"]))
    with pytest.raises(InvalidArgument, match="1 prompts need as many answers"):
        task.value()
    assert scene.client.hub.lost is not None


# ------------------------------------------------------------------------------------------------------ several methods


@pytest.mark.parametrize(
    "needs",
    [order for length in (1, 2, 3) for order in itertools.permutations(METHODS, length) if order[0] == "publickey"]
    + [("publickey", "publickey"), ("publickey", "publickey", "password")],
)
def test_a_server_that_wants_several_gets_them_in_its_order(needs):
    door = Door(*needs, keys=KEYS)
    plan = LoginPlan(KEYS[:2], password="sesame", prompts=lambda question: ["1234"])
    scene, task = meet(door, plan)
    assert is_in(scene, task)
    words = {"publickey": "publickey", "password": "password sesame", "keyboard-interactive": "answers 1234"}
    assert door.seen == [words[method] for method in needs]


@pytest.mark.parametrize("first", METHODS)
@pytest.mark.parametrize("second", METHODS)
def test_a_server_that_offers_only_the_next_one_gets_that(first, second):
    """As OpenSSH's AuthenticationMethods. A key that was tried before anybody knew is not used up."""
    door = Door(first, second, keys=KEYS[:1], codes=["sesame"])
    config = ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK, auth_methods=METHODS)
    scene = Scene(ClientConfig(user="alice", debug_raise=True, preferences=QUICK), config)
    reject = scene.server.conn.reject_auth

    def reject_all_but_the_first(question, *, partial=False, methods=None):
        reject(question, partial=partial, methods=methods if partial else (first,))

    scene.server.conn.reject_auth = reject_all_but_the_first
    scene.serve(door)
    task = scene.client.begin(log_in(scene.client.hub, trust, LoginPlan(KEYS[:1], password="sesame")))
    scene.settle()
    if first != second:
        assert is_in(scene, task)
    else:
        assert refused(task).methods == (first,)


def test_what_is_wanted_beyond_the_plan_ends_it():
    door = Door("publickey", "password")
    scene, task = meet(door, LoginPlan(KEYS[:1]))
    error = refused(task)
    assert error.methods == ("password",)
    assert error.tried == ("publickey",)
    assert "password" in str(error)
    assert isinstance(scene.server.hub.lost, PeerDisconnected)


def test_who_has_nothing_learns_what_the_server_takes():
    _, task = meet(Door("publickey"), LoginPlan())
    error = refused(task)
    assert (error.methods, error.tried) == (METHODS, ("none",))


@pytest.mark.covers("V10")
def test_a_server_that_takes_nothing_is_not_asked_again_and_again():
    class Nothing(Door):
        def none(self, user):
            return False

    scene = Scene(
        ClientConfig(user="alice", debug_raise=True, preferences=QUICK),
        ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK, auth_methods=(), ask_none=True),
    ).serve(Nothing())
    task = scene.client.begin(log_in(scene.client.hub, trust, LoginPlan(KEYS, password="sesame")))
    scene.settle()
    assert refused(task).tried == ("publickey", "publickey", "publickey", "none")


def test_who_is_let_in_without_proof_is_in():
    class Open(Door):
        def none(self, user):
            return user == "alice"

    scene, task = meet(Open(), LoginPlan(password="sesame"), ask_none=True)
    assert is_in(scene, task)
    scene, task = meet(Open(), LoginPlan(), ask_none=True)
    assert is_in(scene, task)


@pytest.mark.covers("R169")
def test_a_plan_says_what_is_left_and_no_secret():
    plan = LoginPlan(KEYS, password="sesame")
    assert repr(plan) == "<LoginPlan, 3 keys and password, keyboard-interactive left>"
    assert repr(LoginPlan()) == "<LoginPlan, 0 keys and nothing else left>"


def test_a_plan_answers_only_what_is_asked_at_a_login():
    scene = Scene()
    with pytest.raises(InvalidArgument, match="HostKeyOffered"):
        LoginPlan()(scene.client.conn, HostKeyOffered(id=1, key=HOST_KEY.public_key, algorithm="x"))


def test_credentials_of_ones_own():
    answered = []

    def credentials(conn, question):
        answered.append(type(question).__name__)
        yield Sleep(1.0)
        conn.auth_password(question, "sesame")

    scene, task = meet(Door("password"), credentials)
    assert is_in(scene, task)
    assert answered == ["CredentialNeeded"]


def test_what_credentials_leave_unanswered_is_refused():
    _, task = meet(Door("password"), lambda conn, question: None)
    assert "nothing is left to try" in str(refused(task))


def test_an_error_of_the_credentials_is_told_and_ends_the_connection():
    def credentials(conn, question):
        raise KeyboardInterruption

    scene, task = meet(Door("password"), credentials)
    with pytest.raises(KeyboardInterruption):
        task.value()
    assert isinstance(scene.server.hub.lost, PeerDisconnected)


class KeyboardInterruption(Exception):
    pass


# ---------------------------------------------------------------------------------------------------------- the handler


@pytest.mark.covers("V64", "V65")
@pytest.mark.parametrize("verdict", [None, 1, "yes", object(), Partial(("none",)), Partial(()), Partial("password")])
@pytest.mark.parametrize("method", ["public_key", "password", "keyboard_interactive"])
def test_only_true_lets_anyone_in(method, verdict):
    """And a verdict that cannot be told is a no, and a bug."""
    door = Door()
    setattr(door, method, lambda *_: verdict)
    plan = {
        "public_key": LoginPlan(KEYS[:1]),
        "password": LoginPlan(password="x"),
        "keyboard_interactive": LoginPlan(prompts=lambda question: ["x"]),
    }[method]
    scene, task = meet(door, plan)
    refused(task)
    assert bool(door.errors) == isinstance(verdict, Partial)
    assert isinstance(scene.service.value(), ConnectionLoss)
    assert scene.bugs == []


@pytest.mark.covers("V64")
@pytest.mark.parametrize(
    "challenge",
    [
        Challenge([("", True)]),
        Challenge([("x", True)] * 33),
        Challenge(["x"]),
        Challenge([("x", True, 1)]),
        Challenge(None),
        Challenge([(1, True)]),
        Challenge([], "\ud800"),
    ],
)
def test_a_challenge_that_cannot_be_told_is_a_no_and_a_bug(challenge):
    door = Door()
    door.keyboard_interactive = lambda user, answers: challenge
    scene, task = meet(door, LoginPlan(prompts=lambda question: ["x"]))
    refused(task)
    assert len(door.errors) == 1
    assert scene.bugs == []


def test_a_new_password_cannot_be_asked_for_where_there_is_none():
    door = Door()
    door.public_key = lambda user, key: ChangePassword()
    _, task = meet(door, LoginPlan(KEYS[:1]))
    refused(task)
    door = Door()
    door.password = lambda *_: ChangePassword("\ud800")
    _, task = meet(door, LoginPlan(password="x"))
    refused(task)
    assert [type(error) for error in door.errors] == [InvalidArgument]


@pytest.mark.covers("V64")
def test_a_bug_in_the_handler_is_a_no():
    door = Door("password")

    def broken(user, key):
        raise ZeroDivisionError

    door.public_key = broken
    scene, task = meet(door, LoginPlan(KEYS[:1], password="sesame"))
    assert is_in(scene, task)
    assert [type(error) for error in door.errors] == [ZeroDivisionError]


def test_the_handler_may_take_its_time():
    door = Door("password")
    door.password = slowly(True)
    scene, task = meet(door, LoginPlan(password="sesame"))
    assert is_in(scene, task)
    assert scene.now == 5.0


def test_a_handler_that_decides_too_late_decides_nothing():
    door = Door("password")
    door.password = slowly(True)
    scene, task = meet(door, LoginPlan(password="sesame"), slow=True)
    scene.settle()
    scene.cut()
    scene.pass_time(10.0)
    with pytest.raises(UnexpectedEof):
        task.value()
    assert isinstance(scene.service.value(), UnexpectedEof)
    assert door.users == []


def test_a_service_that_is_given_up_has_refused():
    door = Door("password")

    def never(*_):
        yield Wait()

    door.password = never
    scene, task = meet(door, LoginPlan(password="sesame"), slow=True)
    scene.settle()
    (question,) = scene.server.conn.questions
    scene.service.cancel()
    scene.settle()
    assert question not in scene.server.conn.questions
    task.cancel()


# ------------------------------------------------------------------------------------------------------------ host keys


def known(line=None):
    """Known hosts with one line, in which KEY stands for the server's key and OTHER for another one."""
    ours, other = (key.public_key.openssh() for key in (HOST_KEY, KEYS[0]))
    text = (line or "").replace("KEY", ours).replace("OTHER", other)
    return known_hosts.parse(text)


@pytest.mark.covers("V08", "R11")
@pytest.mark.parametrize(
    ("trusted", "error"),
    [
        (HOST_KEY.public_key, None),
        (KEYS[0].public_key, HostKeyChanged),
        (known("db.example KEY"), None),
        (known("other.example KEY"), HostKeyUnknown),
        (known(), HostKeyUnknown),
        (known("db.example OTHER"), HostKeyChanged),
        (known("@revoked db.example KEY"), HostKeyRevoked),
        (trust, None),
        (slowly(True), None),
        (slowly(False), HostKeyRejected),
        (lambda question: False, HostKeyRejected),
        (lambda question: 1, HostKeyRejected),
        (lambda question: object(), HostKeyRejected),
        (lambda question: None, HostKeyRejected),
    ],
)
def test_whose_key_it_is(trusted, error):
    check = host_key_check(trusted, "db.example", 22)
    scene, task = meet(Door("password"), LoginPlan(password="sesame"), host_key=check)
    if error is None:
        assert is_in(scene, task)
        return
    with pytest.raises(HostKeyRejected) as caught:
        task.value()
    assert type(caught.value) is error
    assert isinstance(scene.client.hub.lost, HostKeyRejected)
    assert isinstance(scene.server.hub.lost, PeerDisconnected)
    assert scene.server.hub.lost.code == 9
    assert scene.handler.seen == []


@pytest.mark.covers("V08")
def test_an_error_of_the_check_is_told_and_is_a_no():
    def broken(question):
        raise ZeroDivisionError

    scene, task = meet(Door("password"), LoginPlan(password="sesame"), host_key=broken)
    with pytest.raises(ZeroDivisionError):
        task.value()
    assert scene.server.hub.lost.code == 9


@pytest.mark.covers("V08")
def test_what_is_no_check_is_said_at_once():
    with pytest.raises(InvalidArgument, match="host_key"):
        host_key_check("yes", "db.example", 22)


CERTIFICATE = Certificate.issue(
    KEYS[2], KEYS[0].public_key, CertificateKind.USER, key_id="me", principals=["alice"], valid_before=FOREVER
)


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        ({"keys": ["-----BEGIN SECRET"]}, r"not a str; PrivateKey\.load"),
        ({"keys": [Path("id_ed25519")]}, r"not a PosixPath; PrivateKey\.load"),
        ({"keys": [CERTIFICATE]}, "in a pair with its key"),
        ({"keys": [(KEYS[0],)]}, "not a tuple"),
        ({"keys": [(KEYS[0], "certificate")]}, "not a tuple"),
        ({"keys": [(KEYS[1], CERTIFICATE)]}, "is for the key SHA256:.*, not for SHA256:"),
        ({"agent": "/run/agent"}, "as open_agent.. makes, not a str"),
    ],
)
def test_what_nobody_can_log_in_with_is_said_at_once(credentials, said):
    with pytest.raises(InvalidArgument, match=said) as caught:
        LoginPlan(**credentials)
    assert "SECRET" not in str(caught.value)
    LoginPlan([KEYS[0], KEYS[0].public_key, (KEYS[0], CERTIFICATE), (KEYS[0].public_key, CERTIFICATE)])


def test_what_is_known_of_a_host_is_said():
    other = PrivateKey.generate("ecdsa-sha2-nistp256").public_key.openssh()
    check = host_key_check(known_hosts.parse(f"db.example {other}"), "db.example", 22)
    _, task = meet(Door("password"), LoginPlan(password="sesame"), host_key=check)
    with pytest.raises(HostKeyUnknown, match="known are keys of the types ecdsa-sha2-nistp256"):
        task.value()


def test_logging_in_again_does_nothing():
    scene, task = meet(Door("password"), LoginPlan(password="sesame"))
    assert is_in(scene, task)
    assert scene.client.perform(log_in(scene.client.hub, trust, LoginPlan())) is None


def test_algorithms_are_agreed_on_before_anybody_is_asked():
    scene = Scene(
        ClientConfig(user="alice", preferences=Preferences(kex=("curve25519-sha256",))),
        ServerConfig(host_keys=(HOST_KEY,), preferences=Preferences(kex=("ecdh-sha2-nistp256",))),
    ).serve()
    asked = []
    with pytest.raises(ConnectionLoss, match="no common kex"):
        scene.client.perform(log_in(scene.client.hub, asked.append, LoginPlan()))
    assert asked == []
