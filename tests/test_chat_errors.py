"""What servers say when they refuse, in the words of several kinds of them."""

from __future__ import annotations

import json

import pytest

from medmllm_plugin.errors import ModelError, TooManyTokensError
from medmllm_plugin.models.chat_errors import Refusal, refusal


def said(message: str, *, status: int = 400, **fields: object) -> Refusal:
    return refusal("gpu:8000", status, json.dumps({"error": {"message": message, **fields}}))


def told(refused: Refusal) -> ModelError:
    return refused.error(model="lingshu", reply_tokens=100, key_env="GPU_KEY", has_key=True)


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("At most 8 image(s) may be provided in one prompt. Set `--limit-mm-per-prompt` to increase it.", 8),
        ("Too many images in request. Max is 50.", 50),
        ("Too many images: maximum allowed is 20, got 33", 20),
        ("This model accepts a maximum of 10 images per request", 10),
        ("messages: max images per request: 100", 100),
        ("Image 3 could not be decoded", None),
        ("At most 1 video(s) may be provided in one prompt.", None),
    ],
)
def test_a_limit_of_pictures_is_understood(message: str, limit: int | None) -> None:
    assert said(message).picture_limit == limit


@pytest.mark.parametrize(
    ("refused", "tokens"),
    [
        (
            said(
                "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 "
                "input tokens, which exceeds this limit even without any output tokens."
            ),
            (5000, 4096),
        ),
        (said("Input length (5000) exceeds model's maximum context length (4096)."), (5000, 4096)),
        (
            said("The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
            (5000, 4096),
        ),
        (
            said(
                "request exceeds the available context size, try increasing it",
                type="exceed_context_size_error",
                n_prompt_tokens=5000,
                n_ctx=4096,
            ),
            (5000, 4096),
        ),
        (
            said(
                "Requested token count exceeds the model's maximum context length of 4096 tokens. You "
                "requested a total of 8072 tokens: 5000 tokens from the input messages and 3072 tokens for "
                "the completion."
            ),
            (5000, 4096),
        ),
        (said("max_tokens must be at least 1"), None),
    ],
)
def test_a_limit_of_tokens_is_understood(refused: Refusal, tokens: tuple[int, int] | None) -> None:
    assert refused.token_limit == tokens
    assert isinstance(told(refused), TooManyTokensError) == (tokens is not None)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "gpu:8000: refused the key in GPU_KEY (oh); put its key into that environment variable"),
        (404, "gpu:8000: found no model 'lingshu' or no chat completions at this address (oh)"),
        (413, "gpu:8000: found the request too large (oh); show fewer or smaller pictures"),
        (429, "gpu:8000: is asked too often or too much (429 (oh)); try again later"),
        (500, "gpu:8000: failed (500 (oh)); see the server's log"),
        (418, "gpu:8000: refused the request (418 (oh))"),
    ],
)
def test_each_status_has_its_words(status: int, words: str) -> None:
    assert str(told(said("oh", status=status))) == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": "no such model"}', "no such model"),
        ('{"object": "error", "message": "too hot", "code": 400}', "too hot"),
        ('{"detail": [{"msg": "field required"}]}', '[{"msg": "field required"}]'),
        ("<html><head><title>502</title></head></html>", "an HTML page"),
        ("upstream\n  gone\x1b[31m", "upstream gone [31m"),
        ('{"message": "bad image data:image/png;base64,AAAA in part 3"}', "bad image (a picture) in part 3"),
        ("x" * 1000, "x" * 297 + "..."),
        ("", ""),
        ("[" * 100_000, "[" * 297 + "..."),
    ],
)
def test_the_words_of_a_server_become_one_short_line(body: str, words: str) -> None:
    assert refusal("gpu:8000", 400, body).words == words
