"""Questions asked beside the loop: answers come back as events, in the thread that asked."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

from natfix.background import Background


def deliver(background: Background, count: int = 1) -> None:
    for _ in range(count):
        assert select.select([background], [], [], 5)[0]
        background.deliver()


def test_answer_is_delivered_in_the_asking_thread() -> None:
    """The question runs elsewhere, the answer is handed over here."""
    background = Background()
    answers: list[object] = []
    background.ask("where", threading.current_thread, answers.append, answers.append)
    deliver(background)
    assert answers != [threading.current_thread()]
    assert isinstance(answers[0], threading.Thread)


def test_failure_is_an_answer() -> None:
    """What the question raises comes back to the one that asked, and the next question is answered."""
    background = Background()
    answers: list[object] = []
    background.ask("bad", lambda: 1 // 0, answers.append, answers.append)
    background.ask("good", lambda: 5, answers.append, answers.append)
    deliver(background, 2)
    assert isinstance(answers[0], ZeroDivisionError)
    assert answers[1] == 5


def test_question_that_waits_is_asked_once() -> None:
    """Events that come in flocks do not pile questions up; one that is being answered is asked again."""
    background = Background()
    started, go_on = threading.Event(), threading.Event()
    asked: list[int] = []

    def question() -> int:
        started.set()
        go_on.wait(5)
        asked.append(1)
        return len(asked)

    answers: list[object] = []
    ask: Callable[[], None] = lambda: background.ask("q", question, answers.append, answers.append)  # noqa: E731
    ask()
    assert started.wait(5)
    for _ in range(10):
        ask()
    go_on.set()
    deliver(background, 2)
    assert answers == [1, 2]
    assert not select.select([background], [], [], 0.05)[0]
