"""Signals that the node waits for: whenever one comes, it is heard."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

from medmllm_plugin.dicom_bridge.signals import Signals

NUMBER = signal.SIGUSR1
OTHER = signal.SIGUSR2

TIMES = 2_000


def test_those_that_came_before_anybody_waited_are_heard_in_their_order() -> None:
    with Signals([NUMBER, OTHER]) as told:
        for number in (NUMBER, OTHER, NUMBER):
            os.kill(os.getpid(), number)
        assert [told.next() for _ in range(3)] == [NUMBER, OTHER, NUMBER]


def test_another_handlers_signal_is_left_to_it() -> None:
    heard: list[int] = []
    before = signal.signal(OTHER, lambda number, _: heard.append(number))
    try:
        with Signals([NUMBER]) as told:
            os.kill(os.getpid(), OTHER)
            os.kill(os.getpid(), NUMBER)
            assert told.next() == NUMBER
    finally:
        signal.signal(OTHER, before)
    assert heard == [OTHER]


def test_what_was_before_is_put_back() -> None:
    before = signal.getsignal(NUMBER)
    with Signals([NUMBER]):
        assert signal.getsignal(NUMBER) is not before
    assert signal.getsignal(NUMBER) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_one_that_comes_just_as_the_main_thread_goes_to_sleep_is_heard() -> None:
    # threads that take turns at the interpreter's lock: what made one in some hundreds go unheard
    ending, heard = threading.Event(), threading.Event()
    went = 0

    def work() -> None:
        while not ending.is_set():
            sum(range(2_000))
            time.sleep(0.0002)

    def tell() -> None:
        nonlocal went
        chance = random.Random(7)
        while went < TIMES:
            time.sleep(chance.uniform(0.0, 0.00002))
            os.kill(os.getpid(), NUMBER)
            if not heard.wait(20.0):
                break
            heard.clear()
            went += 1
        ending.set()
        os.kill(os.getpid(), NUMBER)

    with Signals([NUMBER]) as told:
        threads = [threading.Thread(target=one) for one in (tell, *[work] * 6)]
        for thread in threads:
            thread.start()
        while not ending.is_set():
            told.next()
            heard.set()
        for thread in threads:
            thread.join()
    assert went == TIMES
