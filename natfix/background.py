"""Questions that take long (a program to run, a rule set to read), asked beside the loop.

The loop holds people's packets, so it never waits for `ip` or `nft`: a thread asks, and the answer comes
back as an event of the loop.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Background:
    """One thread that answers questions in their order, and a file descriptor that tells of answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], Callable[[], None]]] = {}
        self._names: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        threading.Thread(target=self._work, name="background", daemon=True).start()

    def fileno(self) -> int:
        return self._event

    def ask(
        self, name: str, question: Callable[[], T], answered: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Have *question* answered; :meth:`deliver` then calls *answered*, or *failed* with what it raised.

        A question that is asked again before its turn came is asked once. One that is being answered is
        asked again, since what it looks at may have changed meanwhile.
        """
        with self._lock:
            if name in self._waiting:
                return
            self._waiting[name] = partial(_answer, question, answered, failed)
        self._names.put(name)

    def deliver(self) -> None:
        """Hand over one answer, in the thread that calls this."""
        os.eventfd_read(self._event)
        self._answers.get()()

    def _work(self) -> None:
        while True:
            name = self._names.get()
            with self._lock:
                question = self._waiting.pop(name)
            self._answers.put(question())
            os.eventfd_write(self._event, 1)


def _answer(
    question: Callable[[], T], answered: Callable[[T], None], failed: Callable[[Exception], None],
) -> Callable[[], None]:
    try:
        return partial(answered, question())
    except Exception as problem:
        return partial(failed, problem)
