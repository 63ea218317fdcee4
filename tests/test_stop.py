"""Signals that ask a process to stop."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from wsolbench import stop
from wsolbench.stop import Stop, Stopped, by_signals

ASKING = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in ASKING]
    yield
    for number, handler in zip(ASKING, before, strict=True):
        signal.signal(number, handler)


def test_nothing_stops_unasked() -> None:
    wish = Stop()

    assert list(wish.heeding(range(3))) == [0, 1, 2]
    wish.check()


@pytest.mark.parametrize("number", ASKING)
def test_the_item_at_which_a_stop_is_asked_for_is_the_last(number: signal.Signals) -> None:
    with by_signals(Stop()) as wish:
        seen = []
        for item in wish.heeding(range(5)):
            seen.append(item)
            if item == 1:
                os.kill(os.getpid(), number)

    assert seen == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_cluster_ends_the_process_with_the_signals_code(number: signal.Signals) -> None:
    with pytest.raises(Stopped, match=f"^stopped by {number.name}$") as caught:
        Stop(asked=number).check()

    assert caught.value.code == 128 + number


@pytest.mark.parametrize("wish", [Stop(asked=signal.SIGINT), Stop(lambda: True, signal.SIGTERM)])
def test_a_person_interrupts(wish: Stop) -> None:
    with pytest.raises(KeyboardInterrupt):
        wish.check()


def test_the_first_signal_counts() -> None:
    with by_signals(Stop()) as wish:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)

    assert wish.asked == signal.SIGTERM


def test_second_control_c_ends_at_once() -> None:
    with by_signals(Stop()):
        os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_patient_process_hears_any_number_of_them() -> None:
    with by_signals(Stop(), patient=True) as wish:
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)

    assert wish.asked == signal.SIGINT


def test_control_c_that_was_ignored_before_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    with by_signals(Stop()) as wish:
        os.kill(os.getpid(), signal.SIGINT)
        assert wish.asked is None
        os.kill(os.getpid(), signal.SIGTERM)

    assert wish.asked == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in ASKING]

    with by_signals(Stop()):
        assert [signal.getsignal(number) for number in ASKING] != before

    assert [signal.getsignal(number) for number in ASKING] == before


def test_a_patient_process_cannot_be_disturbed_while_it_exits() -> None:
    with by_signals(Stop(), patient=True):
        pass

    for number in ASKING:
        os.kill(os.getpid(), number)


def test_other_threads_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGUSR2), []

    def elsewhere() -> None:
        with by_signals(Stop()):
            seen.append(signal.getsignal(signal.SIGUSR2))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()

    assert seen == [before]


def child_that_is_sent(
    number: signal.Signals, *, deaf: bool, by_parent: bool = True, told_to_end: bool = True
) -> int | None:
    """The exit code of a forked child, which after the signal is told to exit with 7, or is left to end by it."""
    fork = multiprocessing.get_context("fork")
    ready, (heard, sent) = fork.Event(), os.pipe()

    def wait() -> None:
        if deaf:
            stop.heed_only_the_parent(0)
        ready.set()
        os.read(heard, 1)
        os._exit(7)

    child = fork.Process(target=wait)
    child.start()
    assert ready.wait(10)
    if by_parent:
        os.kill(child.pid or 0, number)
    else:
        other = fork.Process(target=os.kill, args=(child.pid, number))
        other.start()
        other.join()
    if told_to_end:
        os.write(sent, b".")
    child.join(10)
    child.kill()
    child.join()
    os.close(heard)
    os.close(sent)
    return child.exitcode


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
@pytest.mark.parametrize("deaf", [False, True])
def test_forked_children_do_not_hear(number: signal.Signals, deaf: bool) -> None:
    with by_signals(Stop()):
        assert child_that_is_sent(number, deaf=deaf) == 7


def test_forked_children_end_by_sigterm() -> None:
    with by_signals(Stop()):
        assert child_that_is_sent(signal.SIGTERM, deaf=False) == -signal.SIGTERM


def test_children_that_load_images_end_by_their_parents_sigterm_only() -> None:
    with by_signals(Stop()):
        assert child_that_is_sent(signal.SIGTERM, deaf=True, by_parent=False) == 7
        assert child_that_is_sent(signal.SIGTERM, deaf=True, told_to_end=False) == 0


def test_children_of_a_process_that_does_not_listen_are_as_ever() -> None:
    with by_signals(Stop()):
        pass

    assert child_that_is_sent(signal.SIGUSR2, deaf=False) == -signal.SIGUSR2
