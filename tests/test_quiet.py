"""Silence is one thread's own: others are heard meanwhile, and it lasts while others come and go."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from medmllm_plugin.transforms.quiet import quiet


def test_nothing_is_said_inside_and_all_is_outside() -> None:
    with quiet():
        with quiet():
            warnings.warn("inside", stacklevel=1)
        warnings.warn("inside still", stacklevel=1)
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn("outside", stacklevel=1)


def test_it_holds_where_others_changed_what_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            warnings.warn("inside", stacklevel=1)
        with pytest.raises(UserWarning, match="outside"):
            warnings.warn("outside", stacklevel=1)


def test_another_thread_is_heard_meanwhile() -> None:
    def other() -> None:
        warnings.warn("another's", stacklevel=1)

    with ThreadPoolExecutor(1) as threads, pytest.warns(UserWarning, match="another's"), quiet():
        threads.submit(other).result()


def test_it_lasts_when_another_thread_ends_its_own() -> None:
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            entered.set()
            assert left.wait(10)

    with warnings.catch_warnings(), ThreadPoolExecutor(1) as threads:
        warnings.simplefilter("error")
        theirs = threads.submit(other)
        assert entered.wait(10)
        with quiet():
            left.set()
            theirs.result()
            warnings.warn("inside", stacklevel=1)
        with pytest.raises(UserWarning, match="outside"):
            warnings.warn("outside", stacklevel=1)
