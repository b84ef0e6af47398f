"""What is kept of studies: keys of prompts, caches with room, and the limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.cache_utils import Cache

from medmllm_plugin.models.prefix_memory import (
    Features,
    Key,
    Memory,
    RoomyLayer,
    common,
    copied,
    cropped,
    picture_hash,
    prompt_key,
)


def a_key(*tokens: int) -> Key:
    return np.array(tokens, np.int64)


def states(tokens: int, *, start: int = 0, rows: int = 1) -> torch.Tensor:
    """Shape (rows, 2 heads, tokens, 4), each number another one."""
    count = torch.arange(start, start + tokens, dtype=torch.float32)[:, None] * 100 + torch.arange(8.0)
    return count.reshape(tokens, 2, 4).transpose(0, 1).expand(rows, 2, tokens, 4)


def a_cache(tokens: int, *, room: int = 0) -> Cache:
    cache = Cache(layers=[RoomyLayer(room), RoomyLayer(room)])
    for layer in cache.layers:
        layer.update(states(tokens), -states(tokens))
    return cache


def features(numbers: int) -> Features:
    return Features(pooled=torch.zeros(1, numbers, dtype=torch.uint8))


@given(steps=st.lists(st.integers(1, 30), min_size=1, max_size=8), room=st.integers(0, 40))
def test_a_layer_with_room_holds_what_a_layer_without_holds(steps: Sequence[int], room: int) -> None:
    roomy, plain, start = Cache(layers=[RoomyLayer(room)]), DynamicCache(), 0

    for tokens in steps:
        found = roomy.update(states(tokens, start=start), -states(tokens, start=start), 0)
        expected = plain.update(states(tokens, start=start), -states(tokens, start=start), 0)
        start += tokens

        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert roomy.get_seq_length() == sum(steps)


def test_a_token_more_copies_nothing_as_long_as_there_is_room() -> None:
    layer = RoomyLayer(room=10)
    layer.update(states(4), states(4))
    where = layer.keys.data_ptr()

    layer.update(states(6, start=4), states(6, start=4))
    kept = layer.keys.data_ptr()
    layer.update(states(1, start=10), states(1, start=10))

    assert kept == where != layer.keys.data_ptr()
    assert layer.nbytes == 2 * 13 * 2 * 4 * 4


def test_a_cropped_cache_goes_on_in_the_place_of_what_was_cropped() -> None:
    cache = cropped(a_cache(9, room=20), 5)

    cache.update(states(2, start=50), states(2, start=50), 0)

    expected = torch.cat([states(5), states(2, start=50)], dim=2)
    assert torch.equal(cache.layers[0].keys, expected)
    assert cache.layers[1].get_seq_length() == 5


def test_a_copy_shares_no_memory() -> None:
    cache = a_cache(9)

    copy = copied(cache, 5, room=7)
    copy.layers[0].keys.zero_()

    assert torch.equal(cache.layers[0].keys, states(9))
    assert copy.get_seq_length() == 5


def test_pictures_are_told_apart_by_every_pixel_and_their_shape() -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    other = pixels.copy()
    other[5, 7, 2] = 1

    hashes = {picture_hash(one) for one in (pixels, other, pixels.reshape(8, 6, 3), pixels.copy())}

    assert len(hashes) == 3


def test_a_grey_picture_is_told_by_one_of_its_channels() -> None:
    plane = np.arange(48, dtype=np.uint8).reshape(6, 8, 1)
    grey = np.broadcast_to(plane, (6, 8, 3))

    assert picture_hash(grey) == picture_hash(np.broadcast_to(plane.copy(), (6, 8, 3)))
    assert picture_hash(grey) != picture_hash(np.broadcast_to(plane + 1, (6, 8, 3)))


def test_a_key_has_a_picture_s_hash_in_each_place_of_it() -> None:
    ids = torch.tensor([5, 9, 9, 6, 9, 9, 9, 7])

    key = prompt_key(ids, place=9, hashes=[b"a" * 16, b"b" * 16], counts=[2, 3])

    assert key[[0, 3, 7]].tolist() == [5, 6, 7]
    assert (key[[1, 2, 4, 5, 6]] < 0).all()
    assert len(set(key.tolist())) == 5
    with pytest.raises(ValueError, match="places for 5 tokens of pictures, expected 6"):
        prompt_key(ids, place=9, hashes=[b"a" * 16, b"b" * 16], counts=[3, 3])


@given(one=st.lists(st.integers(0, 1), max_size=9), other=st.lists(st.integers(0, 1), max_size=9))
def test_what_two_prompts_begin_with_is_their_longest_common_beginning(
    one: list[int], other: list[int]
) -> None:
    length = common(a_key(*one), a_key(*other))

    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


def test_a_beginning_kept_whole_is_handed_out_itself_and_a_part_of_one_as_a_copy() -> None:
    memory, cache = Memory(1 << 20), a_cache(6)
    memory.keep(a_key(1, 2, 3, 4, 5, 6), cache)

    whole = memory.begin(a_key(1, 2, 3, 4, 5, 6, 9), [3, 6], room=9)
    part = memory.begin(a_key(1, 2, 3, 4, 8, 9), [3, 6], room=9)
    nothing = memory.begin(a_key(1, 2, 7), [3], room=9)

    assert whole == (6, cache)
    assert part[0] == 3
    assert part[1] is not None
    assert part[1] is not cache
    assert nothing == (0, None)


def test_a_longer_beginning_takes_the_place_of_what_it_goes_on_from() -> None:
    memory, longer = Memory(1 << 20), a_cache(4)
    memory.keep(a_key(1, 2), a_cache(2))

    memory.keep(a_key(1, 2, 3, 4), longer)

    assert memory.held == sum(layer.nbytes for layer in longer.layers)
    assert memory.begin(a_key(1, 2, 9), [2], room=3)[0] == 2


def test_the_least_recently_used_makes_room_and_the_limit_is_kept() -> None:
    size = sum(layer.nbytes for layer in a_cache(2).layers)
    memory = Memory(2 * size)
    for first in (1, 2):
        memory.keep(a_key(first, 0), a_cache(2))
    memory.begin(a_key(1, 0), [2], room=0)

    memory.keep(a_key(3, 0), a_cache(2))

    assert memory.held == 2 * size
    assert [memory.begin(a_key(first, 0), [2], room=0)[0] for first in (1, 2, 3)] == [2, 0, 2]


def test_features_make_room_for_features_in_the_order_of_their_use() -> None:
    memory = Memory(100)
    memory.keep_features(b"a", features(40))
    memory.keep_features(b"b", features(40))
    memory.features(b"a")

    memory.keep_features(b"c", features(40))

    assert memory.held == 80
    assert [memory.features(one) is None for one in (b"a", b"b", b"c")] == [False, True, False]


def test_what_is_larger_than_the_limit_is_not_kept_and_drops_nothing() -> None:
    memory = Memory(100)
    memory.keep_features(b"a", features(90))

    memory.keep_features(b"b", features(101))
    memory.keep(a_key(1, 2), a_cache(2))

    assert memory.held == 90
    assert memory.features(b"a") is not None
    assert memory.begin(a_key(1, 2), [2], room=0) == (0, None)


def test_nothing_is_left_after_forgetting() -> None:
    memory = Memory(1 << 20)
    memory.keep_features(b"a", features(90))
    memory.keep(a_key(1, 2), a_cache(2))

    memory.forget()

    assert memory.held == 0
    assert memory.features(b"a") is None
    assert memory.begin(a_key(1, 2), [2], room=0) == (0, None)
