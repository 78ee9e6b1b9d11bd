"""Which answers are owed, which come too late, and which are refused."""

from __future__ import annotations

import gc

import pytest

from sshproto.channels.requests import NoMoreSessions
from sshproto.errors import AlreadyAnswered, UsageError
from sshproto.events import AuthQuestion, CredentialNeeded, GlobalRequested, KeyProbe, NoneAuth, PasswordAuth, Question
from sshproto.questions import Questions


def asked(questions: Questions, *kinds: type[Question]) -> list[Question]:
    found: list[Question] = []
    for kind in kinds or (NoneAuth,):
        found.append(
            kind(id=questions.new_id(), user="alice") if issubclass(kind, AuthQuestion) else kind(id=questions.new_id())
        )
        questions.add(found[-1])
    return found


def test_numbers_rise_from_one_and_never_come_again() -> None:
    questions = Questions()
    assert [questions.new_id() for _ in range(3)] == [1, 2, 3]
    questions.end()
    assert questions.new_id() == 4


def test_what_is_owed_is_listed_oldest_first() -> None:
    questions = Questions()
    first, second, third = asked(questions, NoneAuth, CredentialNeeded, NoneAuth)
    assert questions.owed == (first, second, third)
    questions.settle(second)
    assert questions.owed == (first, third)
    questions.withdraw(first.id)
    assert questions.owed == (third,)
    questions.end()
    assert questions.owed == ()


def test_an_answer_is_due_until_it_is_settled() -> None:
    questions = Questions()
    [question] = asked(questions)
    assert questions.check(question, (NoneAuth,))
    assert questions.check(question, (NoneAuth,))  # asking does not settle: an answer may turn out to be a wrong one
    questions.settle(question)
    with pytest.raises(AlreadyAnswered, match="NoneAuth 1 has been answered, or was never asked here"):
        questions.check(question, (NoneAuth,))


def test_the_kind_must_fit_and_a_base_fits_all_its_kinds() -> None:
    questions = Questions()
    [question] = asked(questions)
    assert questions.check(question, (AuthQuestion,))
    assert questions.check(question, (KeyProbe, NoneAuth))
    with pytest.raises(UsageError, match="this answers KeyProbe or PasswordAuth, not NoneAuth"):
        questions.check(question, (KeyProbe, PasswordAuth))
    assert questions.owed == (question,)


def test_a_wrong_kind_stays_wrong_when_all_is_over() -> None:
    questions = Questions()
    [question] = asked(questions)
    questions.end()
    with pytest.raises(UsageError):
        questions.check(question, (KeyProbe,))


@pytest.mark.covers("V12")
def test_a_question_of_another_connection_with_the_same_number_is_not_ours() -> None:
    """Answers are bound to the very question, not only to its number."""
    questions = Questions()
    asked(questions)
    with pytest.raises(AlreadyAnswered):
        questions.check(NoneAuth(id=1, user="root"), (NoneAuth,))
    with pytest.raises(AlreadyAnswered):
        questions.check(CredentialNeeded(id=1), (CredentialNeeded,))
    with pytest.raises(AlreadyAnswered):
        questions.check(NoneAuth(id=7, user="alice"), (NoneAuth,))


def test_a_question_that_became_void_swallows_its_answer() -> None:
    questions = Questions()
    first, second = asked(questions, NoneAuth, NoneAuth)
    questions.withdraw(first.id)
    assert not questions.check(first, (NoneAuth,))
    assert not questions.check(first, (NoneAuth,))
    assert questions.check(second, (NoneAuth,))


def test_only_what_is_owed_can_become_void() -> None:
    questions = Questions()
    first, second = asked(questions, NoneAuth, NoneAuth)
    questions.settle(first)
    questions.withdraw(first.id)
    questions.withdraw(99)
    for question in (first, NoneAuth(id=99, user="alice")):
        with pytest.raises(AlreadyAnswered):
            questions.check(question, (NoneAuth,))
    assert questions.owed == (second,)


def test_after_the_end_every_answer_is_too_late_and_none_is_an_error() -> None:
    questions = Questions()
    answered, withdrawn, owed = asked(questions, NoneAuth, NoneAuth, NoneAuth)
    questions.settle(answered)
    questions.withdraw(withdrawn.id)
    questions.end()
    for question in (answered, withdrawn, owed):
        assert not questions.check(question, (NoneAuth,))


def test_where_no_answer_is_wanted_none_is_due() -> None:
    questions = Questions()
    question = GlobalRequested(id=1, request=NoMoreSessions(), want_reply=False)
    assert not questions.check(question, (GlobalRequested,))
    assert questions.owed == ()


def test_where_no_answer_is_wanted_the_kind_must_fit_all_the_same() -> None:
    with pytest.raises(UsageError):
        Questions().check(GlobalRequested(id=1, request=NoMoreSessions(), want_reply=False), (AuthQuestion,))


@pytest.mark.covers("V35")
def test_what_is_remembered_of_void_questions_is_what_the_application_holds() -> None:
    """A peer that opens and closes channels for ever makes nothing grow; no answer in earnest is too late."""
    questions = Questions()
    held = asked(questions, *[NoneAuth] * 3)
    for _ in range(2000):
        (question,) = asked(questions, NoneAuth)
        questions.withdraw(question.id)
        assert not questions.check(question, (NoneAuth,))
    del question
    gc.collect()
    assert len(questions._void) == 0
    for question in held:
        questions.withdraw(question.id)
        assert not questions.check(question, (NoneAuth,))
