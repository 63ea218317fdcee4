"""The wish that a trial stops, as signals bring it; it is granted between two steps, never inside one."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

CLUSTERS = (signal.SIGUSR1, signal.SIGUSR2)
"""By which a cluster says that the time is nearly up; which of the two is its own choice."""

_ASKING = (*CLUSTERS, signal.SIGTERM, signal.SIGINT)
_heard: set[signal.Signals] = set()  # while `by_signals` hears them


class Stopped(SystemExit):
    """The process was asked to stop and has done so in order; it exits with 128 and the signal's number."""

    code: int

    def __init__(self, asked: signal.Signals) -> None:
        super().__init__(128 + asked)
        self.asked = asked

    def __str__(self) -> str:
        return f"stopped by {self.asked.name}"


@dataclass
class Stop:
    """Whether, and by which signal, this process has been asked to stop.

    Args:
        cancelled: says whether it is a person who wants that, for good.
        asked: the first signal that asked.
    """

    cancelled: Callable[[], bool] = lambda: False
    asked: signal.Signals | None = None

    def heeding(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until a stop is asked for; `check` tells whether these were all."""
        for item in items:
            yield item
            if self.asked is not None:
                return

    def check(self) -> None:
        """End, if that has been asked for.

        Raises:
            KeyboardInterrupt: a person asked.
            Stopped: the cluster did.
        """
        if self.asked is None:
            return
        if self.asked == signal.SIGINT or self.cancelled():
            raise KeyboardInterrupt
        raise Stopped(self.asked)


def unheard(number: int) -> bool:
    """Whether a Control-C is not for this process, which a shell or nohup started in the background."""
    return number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Signals wait meanwhile; a process that is started does not hear them until it asks to, as `by_signals` does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def put_off() -> Iterator[None]:
    """A SIGTERM waits meanwhile, for this process only: one that is started hears its own, unlike in `held_back`."""
    waiting: list[int] = []
    try:
        with _sigterm_to(lambda number, _: waiting.append(number)):
            yield
    finally:
        if waiting:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """Meanwhile a SIGTERM ends what runs here in order, as a Control-C does, which not every process hears."""
    with _sigterm_to(signal.default_int_handler):
        yield


@contextmanager
def _sigterm_to(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # as in `by_signals`
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def by_signals(stop: Stop, *, patient: bool = False) -> Iterator[Stop]:
    """Meanwhile signals ask for a stop, and forked children do not hear them.

    Args:
        stop: what they ask of.
        patient: a second Control-C does not end the process at once either; and the signals stay unheard afterwards,
            as a process that is about to exit wants it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python brings signals to the main thread only
        return

    def hear(number: int, _: FrameType | None) -> None:
        if stop.asked == number == signal.SIGINT and not patient:
            raise KeyboardInterrupt
        stop.asked = stop.asked or signal.Signals(number)

    _deafen_forks()
    before = {number: signal.signal(number, hear) for number in _ASKING if not unheard(number)}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
    _heard.update(_ASKING)
    try:
        yield stop
    finally:
        _heard.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if patient else handler)


@cache
def _deafen_forks() -> None:
    os.register_at_fork(after_in_child=_deafen)


def _deafen() -> None:
    """Leave stopping to the parent; SIGTERM ends a child as it ends any process."""
    if not _heard:
        return
    for number in (*CLUSTERS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def heed_only_the_parent(_: int) -> None:
    """In a process that loads images: a SIGTERM that a cluster sends to all processes is for the parent alone.

    The parent finishes its step and ends its children in order; by its own SIGTERM too, if need be.
    """
    for number in (*CLUSTERS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "darwin":  # which cannot say who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_the_parent, daemon=True).start()


def _await_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
