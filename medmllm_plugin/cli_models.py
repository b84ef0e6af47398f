"""The command `medmllm models`: what `--model` takes, and whether one of them answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medmllm_plugin.cli_common import config_option, json_option, print_json, print_lines, print_named

if TYPE_CHECKING:
    from medmllm_plugin.models import Model


@click.group("models", invoke_without_command=True)
@click.option("--check", "name", metavar="NAME", help="Open this one, ask it something, and say what came.")
@config_option
@json_option
@click.pass_context
def models_command(context: click.Context, name: str | None, config: Path | None, as_json: bool) -> None:
    """List the models that --model takes, or check one; convert one to a layout that is opened here.

    Models of your own stand in the settings file, each under a name:

    \b
      [models.lingshu]
      uses = "chat"
      urls = ["http://127.0.0.1:8000"]

    \b
    Examples:
      medmllm models
      medmllm models --check lingshu
      medmllm models --check chat:http://127.0.0.1:8000
    """  # noqa: D301
    if context.invoked_subcommand is not None:
        return
    from medmllm_plugin import registry
    from medmllm_plugin.config import load

    settings = None if config is None else load(config)
    if name is None:
        print_named(registry.models(settings), as_json=as_json)
        return
    found = _checked(registry.open_model(name, settings=settings))
    if as_json:
        print_json(found)
        return
    print_lines(
        [
            f"{found['name']} answers: {found['seconds']:.1f} s for a small question.",
            *(f"  {line}" for line in _in_words(found)),
        ]
    )


@models_command.command("convert")
@click.argument("kind", metavar="KIND", type=click.Choice(["radfm"]))
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@json_option
def convert_command(kind: str, source: Path, target: Path, as_json: bool) -> None:
    """Convert the published RadFM in SRC to safetensors in DST, which --model takes.

    SRC holds pytorch_model.bin and Language_files/, as they were downloaded. Nothing of the pickled file is
    run, and little memory is needed: it is read piece by piece. The language half becomes bfloat16.

    \b
    Example:
      medmllm models convert radfm RadFM RadFM-converted
    """  # noqa: D301
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.models.radfm.convert import convert

    with shown_progress(hidden=as_json) as progress:
        done = convert(source, target, progress=progress)
    if as_json:
        print_json({"folder": str(target), **done})
        return
    print_lines(
        [
            f"Written to {target}: {done['tensors']} tensors, {done['bytes'] / 1e9:.1f} GB; "
            f"{done['left_out']} that are never used were left out.",
            f"Read with it: medmllm read STUDY --model {target}",
        ]
    )


def _checked(model: Model) -> dict[str, Any]:
    """What a model is and can, after it answered a question about a grey picture.

    Raises:
        ModelError: If it can't answer.
    """
    import json

    import numpy as np

    from medmllm_plugin.models import Ask
    from medmllm_plugin.prompts import PicturePart, Prompt, TextPart

    able = model.capabilities
    grey = PicturePart(number=1, pixels=np.full((112, 112, 3), 128, np.uint8))
    words = TextPart(text='Is this a picture? Answer with {"picture":true} or {"picture":false}.')
    schema = {
        "type": "object",
        "properties": {"picture": {"type": "boolean"}},
        "required": ["picture"],
        "additionalProperties": False,
    }
    prompt = Prompt(system="", parts=(grey, words) if able.pictures else (words,))
    (reply,) = model.replies([Ask(prompt=prompt, schema=schema, max_tokens=64)])
    try:
        kept = isinstance(json.loads(reply.text)["picture"], bool)
    except (ValueError, KeyError, TypeError):
        kept = False
    able = model.capabilities
    return {
        "name": model.name,
        "version": model.version,
        "seconds": round(reply.seconds, 3),
        "kept_to_schema": kept,
        "pictures": able.pictures,
        "volumes": able.volumes,
        "context_tokens": able.context_tokens,
        "boxes": able.boxes,
        "probabilities": bool(reply.token_probabilities),
        "languages": list(able.languages),
        "domain": able.domain,
        "notes": list(reply.notes),
    }


def _in_words(found: dict[str, Any]) -> list[str]:
    """What was found, a line for each."""
    context = found["context_tokens"]
    volumes = f", as {found['volumes']} volumes and images at most" if found["volumes"] else ""
    return [
        *([f"Version: {found['version']}"] if found["version"] else []),
        f"Its reply {'kept' if found['kept_to_schema'] else 'did not keep'} to the schema it was given.",
        f"Pictures in one prompt: {found['pictures']}{volumes}; tokens: {context or 'it does not tell'}.",
        f"Boxes: {'yes' if found['boxes'] else 'no'}; probabilities of tokens: "
        f"{'yes' if found['probabilities'] else 'no'}; languages: {', '.join(found['languages'])}.",
        f"Domain: {found['domain']}.",
        *found["notes"],
    ]
