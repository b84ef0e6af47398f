"""Items are made when asked for, once."""

from __future__ import annotations

import pytest

from medmllm_plugin.transforms.lazy import Lazy


def test_an_item_is_made_once_and_only_when_asked_for() -> None:
    made: list[int] = []
    items = Lazy(3, lambda k: made.append(k) or k)

    assert [items[1], items[-2], items[1]] == [1, 1, 1]
    assert made == [1]


def test_an_item_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError):
        Lazy(3, int)[3]
