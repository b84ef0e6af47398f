"""Samples of questions in words."""

from __future__ import annotations

from collections.abc import Sequence

from tools.eval_samples.making import FACTS, LETTERS, SAMPLES, put_csv, put_json, put_lines


def in_words() -> None:
    """The benchmarks without pictures."""
    four = [(asked, listed[:4], right) for asked, listed, right in FACTS]

    def lettered(listed: Sequence[str]) -> dict[str, str]:
        return dict(zip(LETTERS, listed, strict=False))

    put_lines(
        SAMPLES / "medxpert-qa-text" / "Text" / "test.jsonl",
        [
            {
                "id": f"Text-{n}",
                "question": asked,
                "options": lettered(listed),
                "label": LETTERS[right],
                "medical_task": "Basic Science",
                "body_system": "Other",
                "question_type": "Understanding",
            }
            for n, (asked, listed, right) in enumerate(FACTS)
        ],
    )
    put_lines(
        SAMPLES / "medqa" / "phrases_no_exclude_test.jsonl",
        [
            {
                "question": asked,
                "answer": listed[right],
                "options": lettered(listed),
                "meta_info": "step1",
                "answer_idx": LETTERS[right],
                "metamap_phrases": [],
            }
            for asked, listed, right in four
        ],
    )
    put_lines(
        SAMPLES / "medmcqa" / "dev.json",
        [
            {
                "question": asked,
                "exp": None,
                "cop": right + 1,
                **{f"op{LETTERS[n].lower()}": one for n, one in enumerate(listed)},
                "subject_name": "Anatomy",
                "topic_name": None,
                "id": f"synthetic-{number}",
                "choice_type": "single",
            }
            for number, (asked, listed, right) in enumerate(four)
        ],
    )
    put_json(
        SAMPLES / "pubmed-qa" / "ori_pqal.json",
        {
            str(90_000_000 + n): {
                "QUESTION": f"Does the test find the disease in group {n}?",
                "CONTEXTS": [f"In a made-up trial, {found} of 50 patients of group {n} were found."],
                "LABELS": ["RESULTS"],
                "MESHES": [],
                "YEAR": "2026",
                "final_decision": decision,
                "LONG_ANSWER": "A made-up abstract.",
            }
            for n, (found, decision) in enumerate(
                [(50, "yes"), (0, "no"), (25, "maybe"), (49, "yes"), (1, "no")]
            )
        },
    )
    put_csv(
        SAMPLES / "mmlu-medical" / "test" / "anatomy_test.csv",
        [{"question": asked, **lettered(listed), "answer": LETTERS[right]} for asked, listed, right in four],
        head=False,
    )
    for count in (4, 5):
        put_csv(
            SAMPLES / "medbullets" / f"medbullets_op{count}.csv",
            [
                {
                    "question": asked,
                    **{f"op{LETTERS[n].lower()}": one for n, one in enumerate(listed[:count])},
                    "answer_idx": LETTERS[right],
                    "answer": listed[right],
                    "explanation": "",
                }
                for asked, listed, right in FACTS
            ],
        )
    put_lines(
        SAMPLES / "super-gpqa" / "SuperGPQA-all.jsonl",
        [
            {
                "uuid": f"synthetic-{n}",
                "question": asked,
                "options": list(listed),
                "answer": listed[right],
                "answer_letter": LETTERS[right],
                "discipline": "Medicine",
                "field": "Clinical Medicine",
                "subfield": "Radiology",
                "difficulty": "easy",
                "is_calculation": False,
            }
            for n, (asked, listed, right) in enumerate(FACTS)
        ],
    )
    put_lines(
        SAMPLES / "health-bench" / "2025-05-07-06-14-12_oss_eval.jsonl",
        [
            {
                "example_tags": ["theme:communication"],
                "ideal_completions_data": {
                    "ideal_completion": f"{listed[right]}.",
                    "ideal_completions_group": "G",
                },
                "prompt": [
                    *(
                        [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
                        * (n % 2)
                    ),
                    {"role": "user", "content": asked},
                ],
                "prompt_id": f"synthetic-{n}",
                "rubrics": [
                    {"criterion": f"Says {listed[right]}", "points": 5, "tags": ["axis:accuracy"]},
                    {"criterion": f"Says {listed[right - 1]}", "points": -5, "tags": ["axis:accuracy"]},
                ],
                "canary": "",
            }
            for n, (asked, listed, right) in enumerate(FACTS)
        ],
    )
