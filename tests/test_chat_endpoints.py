"""Several servers of one model: who is asked next, and who rests."""

from __future__ import annotations

import pytest

from medmllm_plugin.models import chat_endpoints
from medmllm_plugin.models.chat_endpoints import Endpoint, Endpoints
from medmllm_plugin.models.chat_manner import Manner
from medmllm_plugin.models.chat_options import addresses


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(chat_endpoints, "time", clock)
    return clock


def servers(count: int, *, room: int = 4) -> Endpoints:
    place = ",".join(f"http://localhost:{8000 + number}" for number in range(count))
    return Endpoints(addresses(place), manner=Manner(), room=room, backoff=1.0)


def taken(endpoints: Endpoints, *pictures: str) -> Endpoint:
    endpoint, wait = endpoints.take(pictures)
    assert endpoint is not None
    assert wait == 0
    return endpoint


def test_the_least_busy_is_taken() -> None:
    endpoints = servers(3)

    first = [taken(endpoints) for _ in range(3)]
    endpoints.give_back(first[1])

    assert len(set(first)) == 3
    assert taken(endpoints) is first[1]


def test_of_equally_busy_ones_the_one_that_has_the_pictures_is_taken() -> None:
    endpoints = servers(3)
    endpoints.well(endpoints.all[2], ["a", "b"])
    endpoints.well(endpoints.all[1], ["a"])

    assert taken(endpoints, "a", "b") is endpoints.all[2]
    assert taken(endpoints, "a", "b") is endpoints.all[1]


def test_no_server_gets_more_than_there_is_room() -> None:
    endpoints = servers(2, room=2)

    for _ in range(4):
        taken(endpoints)

    assert endpoints.take() == (None, chat_endpoints.BUSY_WAIT)


def test_one_that_failed_rests_longer_each_time(clock: Clock) -> None:
    endpoints = servers(1)
    one = endpoints.all[0]

    rests = []
    for _ in range(9):
        endpoints.failed(one)
        rests.append(one.rests_until - clock.now)
        clock.now = one.rests_until

    for doubled, rest in enumerate(rests):
        longest = min(2.0**doubled, chat_endpoints.LONGEST_REST)
        assert longest / 2 <= rest <= longest


def test_failures_at_the_same_time_count_once(clock: Clock) -> None:
    endpoints = servers(1)

    for _ in range(5):
        endpoints.failed(endpoints.all[0])

    assert endpoints.all[0].failures == 1
    assert endpoints.all[0].rests_until <= clock.now + 1.0


def test_one_that_asked_for_a_rest_gets_it(clock: Clock) -> None:
    endpoints = servers(2)
    endpoints.failed(endpoints.all[0], rest=120.0)
    endpoints.failed(endpoints.all[1], rest=90.0)

    assert endpoints.take() == (None, 90.0)
    clock.now += 100
    assert taken(endpoints) is endpoints.all[1]


def test_an_answer_ends_the_rest(clock: Clock) -> None:
    endpoints = servers(1)
    endpoints.failed(endpoints.all[0])

    endpoints.well(endpoints.all[0], [])

    assert taken(endpoints) is endpoints.all[0]
    assert endpoints.all[0].failures == 0


def test_the_oldest_pictures_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_endpoints, "REMEMBERED", 2)
    endpoints = servers(1)

    endpoints.well(endpoints.all[0], ["a", "b"])
    endpoints.well(endpoints.all[0], ["a", "c"])

    assert list(endpoints.all[0].has) == ["a", "c"]
