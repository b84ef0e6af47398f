"""What each task wants for a reply can be bound by vLLM: by the grammars we choose and by its own."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from medmllm_plugin.models import Ask
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.tasks import TASKS
from tests.values import a_request
from tests.vllm import opened

opened.vllm()


@cache
def compiler() -> Any:
    """As vLLM makes it."""
    import xgrammar

    model = opened.tiny()
    tokens = xgrammar.TokenizerInfo.from_huggingface(
        model._processor.tokenizer, vocab_size=model._engine.vocabulary_size
    )
    return xgrammar.GrammarCompiler(tokens, max_threads=1)


@pytest.mark.parametrize("name", TASKS)
def test_each_task_can_be_asked(name: str) -> None:
    model, request = opened.tiny(), a_request(name)
    ask = Ask(
        prompt=prompt_for(request, model.capabilities),
        schema=schema_for(request, model.capabilities),
        max_tokens=3,
    )

    (reply,) = model.replies([ask])

    assert reply.text.startswith('{"')


@pytest.mark.parametrize("prose", [None, "A nodule in the left lung (image 2). No effusion."])
@pytest.mark.parametrize("name", TASKS)
def test_the_form_of_each_task_is_a_grammar_for_xgrammar(name: str, prose: str | None) -> None:
    schema = schema_for(a_request(name), opened.tiny().capabilities, prose=prose)

    grammar = compiler().compile_json_schema(json.dumps(schema), any_whitespace=False)

    assert grammar.memory_size_bytes > 0
