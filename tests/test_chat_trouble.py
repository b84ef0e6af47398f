"""Chat-completions servers that fail, hang, refuse and forget: asked again, or told in one line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from medmllm_plugin.errors import (
    ModelError,
    ReplyError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.models import chat_hearing
from tests.chat_asked import QUICK, SCHEMA, a_question, opened, refusing
from tests.chat_server import (
    NOTHING_FOUND,
    Behaviour,
    ChatServer,
    Handler,
    piece,
    serving,
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as one:
        yield one


def sending(content: Any, *, status: int = 200) -> Behaviour:
    return lambda handler, _: handler.send(content, status=status)


def hanging_up(handler: Handler, _: dict[str, Any]) -> None:
    handler.close_connection = True


def streaming(*pieces: dict[str, Any] | str) -> Behaviour:
    return lambda handler, _: handler.events(iter(pieces))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_fails_for_now_is_asked_again(server: ChatServer, status: int) -> None:
    server.behaviours += [refusing(status), refusing(status)]

    (reply,) = opened(server).replies([a_question()])

    assert reply.text == NOTHING_FOUND
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "behaviour",
    [
        hanging_up,
        streaming(piece("half a rep", None)),
        streaming({"error": {"message": "Internal server error", "code": 500}}, "[DONE]"),
        streaming(piece("", "error"), "[DONE]"),
    ],
    ids=["hangs up", "hangs up in the middle", "error in the stream", "ends with an error"],
)
def test_what_breaks_off_is_asked_again(server: ChatServer, behaviour: Behaviour) -> None:
    server.behaviours.append(behaviour)

    (reply,) = opened(server).replies([a_question()])

    assert reply.text == NOTHING_FOUND
    assert len(server.asked) == 2


def test_it_gives_up_after_as_many_tries_as_asked_for(server: ChatServer) -> None:
    server.behaviours += [refusing(503, "starting")] * 9

    with pytest.raises(ModelError, match=r"127.0.0.1:\d+: failed \(503 \(starting\)\); see the server's log"):
        opened(server, options="backoff=0.01&retries=2").replies([a_question()])

    assert len(server.asked) == 3


def test_it_waits_as_long_as_it_is_told_to(server: ChatServer) -> None:
    server.behaviours.append(refusing(429, "slow down", Retry_After="0.2"))

    (reply,) = opened(server, options="backoff=600&timeout=60").replies([a_question()])

    assert reply.text == NOTHING_FOUND


def test_it_does_not_wait_longer_than_a_reply_may_take(server: ChatServer) -> None:
    server.behaviours.append(refusing(429, "slow down", Retry_After="3600"))

    with pytest.raises(ModelError, match=r"is asked too often or too much \(429 \(slow down\)\); try again"):
        opened(server).replies([a_question()])

    assert len(server.asked) == 1


def test_a_server_that_says_nothing_is_left(server: ChatServer) -> None:
    done = threading.Event()
    server.behaviours += [lambda *_: done.wait(timeout=10)] * 2

    with pytest.raises(ModelError, match=r"sent nothing for 0\.2 s; let it take longer \(read_timeout\)"):
        opened(server, options=f"{QUICK}&read_timeout=0.2").replies([a_question()])

    done.set()
    assert len(server.asked) == 1


def test_a_server_that_never_ends_is_left(server: ChatServer) -> None:
    left = threading.Event()

    def dripping() -> Iterator[dict[str, Any]]:
        while not left.wait(timeout=0.02):
            yield piece("and ", None)

    server.behaviours.append(lambda handler, _: handler.events(dripping()))

    with pytest.raises(ModelError, match=r"found no whole reply within 0\.4 s"):
        opened(server, options="timeout=0.4").replies([a_question()])

    left.set()


def test_an_endless_answer_is_refused(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_hearing, "MOST_BYTES", 1000)
    server.behaviours.append(streaming(*[piece("and ", None)] * 100))

    with pytest.raises(ReplyError, match="found an endless answer"):
        opened(server).replies([a_question()])


@pytest.mark.parametrize(
    ("behaviour", "words", "raw"),
    [
        (sending("<html><body>Log in</body></html>"), "found an HTML page for an answer; correct", "<html>"),
        (sending('{"choices": [{"mess'), r"not JSON, or half of it", '{"choices": [{"mess'),
        (sending("lorem ipsum"), r"not JSON, or half of it", "lorem ipsum"),
        (sending([1, 2]), "found a list for an answer, expected an object", "[1, 2]"),
        (sending({"choices": 5}), "found no choices in its answer", '{"choices": 5}'),
        (streaming({"choices": 5}), "found no choices in its answer", '{"choices": 5}'),
        (streaming({"choices": [{"delta": {}, "logprobs": {"content": 3}}]}), "of another form", "3"),
        (sending({"id": 1}), "found no choices in its answer", '{"id": 1}'),
        (sending({"choices": []}), "an answer without any choice", '{"choices": []}'),
        (sending({"choices": [{"message": {"content": 5}}]}), "of another form", "5"),
        (
            sending({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
            "an empty reply",
            "",
        ),
        (streaming(piece("", "stop"), "[DONE]"), "found an empty reply", ""),
        (streaming(piece("The", "content_filter"), "[DONE]"), "its filter withheld the reply", "The"),
        (streaming(piece("", "length", reasoning="Hm."), "[DONE]"), "only what the model thought", "Hm."),
        (streaming("<html>"), "found an HTML page", "<html>"),
    ],
)
def test_what_is_no_reply_is_one_clear_error_and_kept(
    server: ChatServer, behaviour: Behaviour, words: str, raw: str
) -> None:
    server.behaviours.append(behaviour)

    with pytest.raises(ReplyError, match=rf"127.0.0.1:\d+: .*{words}") as caught:
        opened(server).replies([a_question()])

    assert "\n" not in str(caught.value)
    assert raw in caught.value.raw_replies[0]
    assert len(server.asked) == 1


def test_too_many_pictures_are_told_as_a_number_and_remembered(server: ChatServer) -> None:
    model = opened(server)

    for _ in range(2):
        with pytest.raises(TooManyPicturesError, match="show fewer") as caught:
            model.replies([a_question(pictures=9)])
        assert caught.value.limit == 8

    assert len(server.asked) == 1
    assert model.capabilities.pictures == 8
    assert model.replies([a_question(pictures=8)])[0].text == NOTHING_FOUND


def test_a_model_without_eyes_says_so() -> None:
    with serving(pictures=0) as server, pytest.raises(ModelError, match="takes no pictures; serve one that"):
        opened(server).replies([a_question()])


def test_too_long_a_prompt_is_told_in_tokens(server: ChatServer) -> None:
    said = "The decoder prompt (length 5012) is longer than the maximum model length of 4096. Make sure that"
    server.behaviours.append(refusing(400, said))

    with pytest.raises(TooManyTokensError, match="found 5012 tokens of prompt and 50 for") as caught:
        opened(server).replies([a_question(max_tokens=50)])

    assert (caught.value.found, caught.value.limit) == (5062, 4096)


def test_a_reply_is_held_to_the_room_there_is(server: ChatServer) -> None:
    said = (
        "This model's maximum context length is 4096 tokens. However, you requested 5072 tokens (2000 in the "
        "messages, 3072 in the completion)."
    )
    server.behaviours.append(refusing(400, said))

    (reply,) = opened(server).replies([a_question(max_tokens=3072)])

    assert reply.text == NOTHING_FOUND
    assert [one["max_tokens"] for one in server.asked] == [3072, 2096]
    assert "had room for 2096 tokens of reply, not for 3072." in reply.notes[1]


def test_more_tokens_than_the_context_are_not_asked_for() -> None:
    with serving(context_tokens=2048) as server:
        opened(server).replies([a_question(max_tokens=24_000)])

        assert server.asked[0]["max_tokens"] == 2047


@pytest.mark.parametrize(
    ("forms", "form"), [(("json_object",), {"type": "json_object"}), ((), None)], ids=["JSON", "nothing"]
)
def test_a_server_that_knows_no_schema_is_told_it_in_words(
    forms: tuple[str, ...], form: dict[str, str] | None
) -> None:
    with serving(forms=forms) as server:
        model = opened(server)

        first, second = (model.replies([a_question()])[0] for _ in range(2))

    assert first.text == NOTHING_FOUND
    assert server.asked[-1].get("response_format") == form
    assert json.dumps(SCHEMA) in server.asked[-1]["messages"][-1]["content"][-1]["text"]
    assert "it was checked against the schema here." in second.notes[1]
    assert len(server.asked) == (3 if forms else 4), "what it takes is remembered"
    assert not model.capabilities.schema_bound


def test_a_reply_that_is_drawn_by_chance_says_so() -> None:
    with serving(without=("temperature",)) as server:
        (reply,) = opened(server).replies([a_question()])

    assert "draws its replies by chance" in reply.notes[1]


def test_events_of_any_form_that_servers_have_are_understood(server: ChatServer) -> None:
    def written(handler: Handler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        events = [piece("lung\u2028and ", None), {"choices": None, "usage": {}}, piece("肺", "stop")]
        lines = [": ping", "event: x", *(f"data:{json.dumps(one, ensure_ascii=False)}" for one in events)]
        handler.wfile.write("\r\n\r\n".join(lines).encode() + b"\r\n\r\n")
        handler.close_connection = True

    server.behaviours.append(written)

    assert opened(server).replies([a_question()])[0].text == "lung\u2028and 肺"


@pytest.mark.parametrize("field", ["top_logprobs", "seed", "temperature", "stream"])
def test_a_field_that_is_refused_is_left_out(field: str) -> None:
    with serving(without=(field,)) as server:
        model = opened(server)

        (reply,) = model.replies([a_question()])

    assert reply.text == NOTHING_FOUND
    assert field not in server.asked[-1]
    assert model.capabilities.probabilities == (field != "top_logprobs")
    assert bool(reply.token_texts) == (field != "top_logprobs")


@pytest.mark.parametrize(("owner", "told"), [("vllm", True), ("llamacpp", False)])
def test_servers_that_sample_as_the_folder_says_are_told_not_to(owner: str, told: bool) -> None:
    with serving(owner=owner) as server:
        opened(server).replies([a_question()])

    assert (server.asked[0].get("repetition_penalty") == 1.0) == told


def test_a_model_whose_probabilities_are_not_for_everybody_is_asked_without(server: ChatServer) -> None:
    server.behaviours.append(refusing(403, "You are not allowed to request logprobs from this model"))

    (reply,) = opened(server).replies([a_question()])

    assert reply.text == NOTHING_FOUND
    assert reply.token_texts == ()


def test_the_newer_name_of_the_most_tokens_is_taken_up(server: ChatServer) -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.behaviours.append(refusing(400, said))

    opened(server).replies([a_question(max_tokens=40)])

    assert server.asked[1]["max_completion_tokens"] == 40
    assert "max_tokens" not in server.asked[1]


def test_other_refusals_are_told_and_not_repeated(server: ChatServer) -> None:
    server.behaviours.append(refusing(400, "the moon is in the wrong phase"))

    with pytest.raises(ModelError, match=r"refused the request \(400 \(the moon is in the wrong phase\)\)"):
        opened(server).replies([a_question()])

    assert len(server.asked) == 1
