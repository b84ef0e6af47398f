"""Pictures that a chat-completions server keeps, and questions spread over several servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import (
    ModelError,
    SettingsError,
)
from medmllm_plugin.models.chat_http import open_model
from tests.chat_asked import a_question, opened, refusing
from tests.chat_server import (
    NOTHING_FOUND,
    ChatServer,
    Handler,
    answer,
    pixels_of,
    serving,
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as one:
        yield one


def test_pictures_go_once_where_the_server_keeps_them(server: ChatServer) -> None:
    model = opened(server, options="pictures=uuid")

    first, second = (model.replies([a_question(text, pictures=3)])[0] for text in ("Report.", "And?"))

    shown = [part for part in server.asked[1]["messages"][1]["content"] if part["type"] == "image_url"]
    assert first.text == second.text
    assert [part["image_url"] for part in shown] == [None] * 3
    assert server.bytes[1] < server.bytes[0] / 3


def test_pictures_that_the_server_forgot_are_sent_again(server: ChatServer) -> None:
    model = opened(server, options="pictures=uuid")
    model.replies([a_question()])
    server.kept.clear()

    (reply,) = model.replies([a_question()])

    assert reply.text == NOTHING_FOUND
    assert len(server.asked) == 3
    assert server.kept


def test_pictures_are_sent_again_whatever_the_server_says_of_their_names(server: ChatServer) -> None:
    model = opened(server, options="pictures=uuid")
    model.replies([a_question()])
    server.behaviours.append(refusing(400, "image_url: Input should be a valid dictionary"))

    (reply,) = model.replies([a_question()])

    assert reply.text == NOTHING_FOUND
    assert "data:image/png" in json.dumps(server.asked[2])


@pytest.mark.parametrize(("owner", "version"), [("llamacpp", "0.32.0"), ("vllm", "0.10.2"), ("vllm", "main")])
def test_only_a_vllm_that_keeps_pictures_is_asked_to(owner: str, version: str) -> None:
    with (
        serving(owner=owner, version=version) as server,
        pytest.raises(SettingsError, match=r"pictures=uuid: found .*, expected vllm 0\.12 or newer"),
    ):
        opened(server, options="pictures=uuid")


def test_pictures_as_files_are_removed_after_the_reply(server: ChatServer, tmp_path: Path) -> None:
    def looking(handler: Handler, asked: dict[str, Any]) -> None:
        urls = [part["image_url"]["url"] for part in asked["messages"][1]["content"][:2]]
        seen.extend(pixels_of(url) for url in urls)
        answer(handler, asked)

    seen: list[Any] = []
    server.behaviours.append(looking)
    ask = a_question(pictures=2)

    opened(server, options=f"pictures=file&picture_folder={tmp_path}").replies([ask])

    np.testing.assert_array_equal(seen[1], ask.prompt.pictures[1].pixels)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_folder_that_is_not_there_is_told(server: ChatServer, tmp_path: Path) -> None:
    model = opened(server, options=f"pictures=file&picture_folder={tmp_path / 'none'}")

    with pytest.raises(
        ModelError, match="pictures can't be put there: No such file or directory; name another"
    ):
        model.replies([a_question()])


def test_questions_are_spread_over_servers() -> None:
    both = threading.Barrier(2)

    def with_the_other(handler: Handler, asked: dict[str, Any]) -> None:
        both.wait(timeout=10)
        answer(handler, asked)

    with serving() as one, serving() as other:
        one.behaviours.append(with_the_other)
        other.behaviours.append(with_the_other)

        opened(one, other).replies([a_question(study=0), a_question(study=50)])

        assert (len(one.asked), len(other.asked)) == (1, 1)


def test_the_next_question_on_a_study_goes_to_the_server_that_read_it() -> None:
    with serving() as one, serving() as other:
        model = opened(one, other)
        model.replies([a_question("number 1", study=1), a_question("number 2", study=50)])

        for _ in range(3):
            model.replies([a_question("again", study=50)])

    again = [[one["messages"][1]["content"][-1]["text"] for one in server.asked] for server in (one, other)]
    assert sorted(map(len, again)) == [1, 4]


def test_another_server_takes_over_from_one_that_is_down() -> None:
    with serving() as one, serving() as other:
        one.behaviours += [refusing(503)] * 9
        model = opened(one, other, options="backoff=30&timeout=20")

        texts = [model.replies([a_question(study=number)])[0].text for number in range(3)]

        assert texts == [NOTHING_FOUND] * 3
        assert (len(one.asked), len(other.asked)) == (1, 3)


def test_another_server_is_asked_where_one_says_nothing() -> None:
    done = threading.Event()
    with serving() as one, serving() as other:
        one.behaviours.append(lambda *_: done.wait(timeout=10))

        (reply,) = opened(one, other, options="backoff=0.01&read_timeout=0.5").replies([a_question()])

        done.set()
        assert reply.text == NOTHING_FOUND
        assert len(other.asked) == 1


def test_a_model_opens_while_one_of_its_servers_is_down() -> None:
    with serving() as down:
        gone = down.url
    with serving() as server:
        model = open_model(f"{gone},{server.url}?backoff=0.01")

        (reply,) = model.replies([a_question()])

    assert reply.text == NOTHING_FOUND


def test_a_server_that_is_down_is_told() -> None:
    with serving() as server:
        url = server.url

    with pytest.raises(ModelError, match=r"127.0.0.1:\d+: can't be reached \(.*\); start the server, or"):
        open_model(url)


def test_a_model_tells_its_server_s_name_and_version(server: ChatServer) -> None:
    model = opened(server)

    assert (model.name, model.version, model.weights_sha256) == ("lingshu", "vllm 0.32.0", "")
    assert model.capabilities.context_tokens == 32_768


def test_a_served_folder_is_told_without_the_folders_above_it() -> None:
    with serving(name="/srv/models/Lingshu-7B", owner="llamacpp") as server:
        model = opened(server)
        model.replies([a_question()])

    assert (model.name, model.version) == ("Lingshu-7B", "")
    assert server.asked[0]["model"] == "/srv/models/Lingshu-7B"


def test_one_of_several_models_must_be_named() -> None:
    with serving(models=("lingshu-lora",)) as server:
        with pytest.raises(SettingsError, match="found the models lingshu, lingshu-lora, expected one; name"):
            opened(server)

        assert opened(server, options="model=lingshu-lora").name == "lingshu-lora"


def test_servers_of_different_models_are_refused() -> None:
    with (
        serving() as one,
        serving(name="qwen3-vl") as other,
        pytest.raises(SettingsError, match="found servers of different models \\(lingshu, qwen3-vl\\)"),
    ):
        opened(one, other)


def test_what_is_no_chat_server_is_told(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.send("<html>Welcome</html>"))

    with pytest.raises(ModelError, match=r"found an HTML page at .*/v1/models, expected a list of models"):
        opened(server)


def test_a_box_is_placed_by_the_family_and_the_server_s_limits(server: ChatServer) -> None:
    usual, small = opened(server), opened(server, options="max_pixels=50176")

    whole = (0.0, 0.0, 448.0, 448.0)
    assert usual.box_to_picture(whole, rows=448, columns=448) == (0, 0, 448, 448)
    assert small.box_to_picture((0.0, 0.0, 224.0, 224.0), rows=448, columns=448) == (0, 0, 448, 448)


def test_a_model_of_an_unknown_family_gives_no_boxes() -> None:
    with serving(name="mystery") as server:
        unknown, told = opened(server), opened(server, options="family=qwen3_vl")

        assert not unknown.capabilities.boxes
        with pytest.raises(ModelError, match="its boxes can't be placed, for its family is not known"):
            unknown.box_to_picture((0, 0, 1, 1), rows=10, columns=10)
        assert told.capabilities.boxes
        assert told.capabilities.box_limit == 1000


def test_settings_say_more_than_the_family(server: ChatServer) -> None:
    model = opened(server, options="plan=count=12,size=448&most_pictures=12&languages=en,de&domain=chest CT")

    able = model.capabilities
    assert (able.pictures, able.plan, able.languages) == (12, {"count": 12, "size": 448}, ("en", "de"))
    assert able.domain == "chest CT"
