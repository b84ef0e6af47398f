r"""How well a model answers simple questions about phantoms that it never saw.

    python -m tools.training.answers [--kind ct-chest] [--studies 200] \
        [--first-seed 2000000000] [--model NAME]

Each study is asked one question of `tools.training.questions`, through the task `question` as a user asks it.
An answer is right if it says the same; a size if it is less than a quarter, or one step, off.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter

import numpy as np

from medmllm_plugin import engine, registry
from medmllm_plugin.phantoms.study import DEFAULT_KIND, sample_study
from medmllm_plugin.pipeline import plan_for
from medmllm_plugin.report import Answer
from medmllm_plugin.tasks import TASKS
from tools.training.examples import make_example
from tools.training.lessons import LESSONS
from tools.training.questions import STEP, questioned

SIZE = re.compile(r"About (\d+) mm\.")


def is_right(said: Answer | None, choice: object, text: str) -> bool:
    """Whether an answer says what it should.

    >>> is_right(Answer(text="About 45 mm."), None, "About 50 mm."), is_right(None, "no", "No mass.")
    (True, False)
    """
    if said is None:
        return False
    if choice is not None:
        return said.choice == choice
    found, true = SIZE.fullmatch(said.text), SIZE.fullmatch(text)
    if found and true:
        return abs(int(found[1]) - int(true[1])) <= max(STEP, int(true[1]) / 4)
    return said.text == text


def main() -> None:
    """Print by the form of question how many were asked and answered rightly, and what was wrong, as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=list(LESSONS), default=DEFAULT_KIND)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=2_000_000_000)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    model = registry.open_model(options.model)
    asked, right, wrong = Counter[str](), Counter[str](), []
    for seed in range(options.first_seed, options.first_seed + options.studies):
        study = sample_study(kind=options.kind, seed=seed)
        example = make_example(study)
        form, question, answer = questioned(
            options.kind,
            json.loads(example.target)["findings"],
            example.long_axes,
            np.random.default_rng([seed, 13]),
        )
        volume = study.volume()
        slices = plan_for(model, volume).apply(volume)
        report = engine.run(TASKS["question"], slices, model, question=question)
        asked[form] += 1
        if is_right(report.answer, answer["choice"], str(answer["text"])):
            right[form] += 1
        else:
            said = None if report.answer is None else (report.answer.choice, report.answer.text)
            wrong.append({"seed": seed, "question": question, "expected": answer["text"], "said": said})
    figures = {
        "kind": options.kind,
        "right": round(right.total() / asked.total(), 3),
        "by question": {form: f"{right[form]} of {count}" for form, count in sorted(asked.items())},
        "wrong": wrong,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
