"""Write the five synthetic items that ship for each benchmark, in its published format.

    python tools/make_eval_samples.py

The pictures are our phantoms, so every answer is right; the questions in words are plain facts. Nothing of
any published benchmark is in them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from medmllm_plugin.phantoms.study import PhantomStudy, sample_study
from medmllm_plugin.transforms.window import apply_window

SAMPLES = Path(__file__).parents[1] / "medmllm_plugin" / "evaluation" / "samples"

SIDE = 96

LETTERS = "ABCDEFGHIJ"

PICTURES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("xr-chest", ("pleural_effusion",), "pleural effusion"),
    ("xr-chest", (), "none"),
    ("xr-chest", ("pneumothorax",), "pneumothorax"),
    ("xr-chest", ("cardiomegaly",), "cardiomegaly"),
    ("xr-chest", ("nodule",), "nodule"),
)
"""(kind, findings, the finding in words) of each."""

FACTS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    (
        "Which chamber of the heart pumps blood into the aorta?",
        ("Left ventricle", "Right ventricle", "Left atrium", "Right atrium", "Coronary sinus"),
        0,
    ),
    (
        "Which imaging modality uses no ionising radiation?",
        ("Computed tomography", "Radiography", "Magnetic resonance imaging", "Fluoroscopy", "Scintigraphy"),
        2,
    ),
    (
        "Where does bile enter the bowel?",
        ("Stomach", "Duodenum", "Ileum", "Colon", "Oesophagus"),
        1,
    ),
    (
        "What does a fluid level in the pleural space on an upright radiograph point to?",
        ("Pneumothorax alone", "Atelectasis", "Emphysema", "Hydropneumothorax", "Cardiomegaly"),
        3,
    ),
    (
        "Which structure crosses the midline between the hemispheres of the brain?",
        ("Corpus callosum", "Thalamus", "Caudate nucleus", "Insula", "Hippocampus"),
        0,
    ),
)
"""(question, five choices, which is right)."""


def study(k: int) -> PhantomStudy:
    """The phantom of picture k."""
    kind, findings, _ = PICTURES[k]
    return sample_study(kind=kind, seed=700 + k, findings=findings, matrix=256)


def pixels(k: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Picture k, shape (rows, columns)."""
    one = study(k)
    center, width = one.scan.window
    grey = apply_window(one.values(0), center=center, width=width)
    scale = SIDE / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def encoded(k: int, form: str) -> bytes:
    """Picture k as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels(k)).save(file, form, **({"quality": 80} if form == "JPEG" else {}))
    return file.getvalue()


def put(path: Path, k: int) -> None:
    """Write picture k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(k, "PNG" if path.suffix == ".png" else "JPEG"))


def put_text(path: Path, text: str) -> None:
    """Write a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def put_json(path: Path, content: object) -> None:
    """Write JSON."""
    put_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def put_lines(path: Path, rows: Sequence[object]) -> None:
    """Write JSON lines."""
    put_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def put_csv(path: Path, rows: Sequence[dict[str, Any]], *, head: bool = True) -> None:
    """Write a table."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    if path.suffix == ".gz":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(file.getvalue().encode(), mtime=0))
    else:
        put_text(path, file.getvalue())


def put_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a Parquet file as the hub has them: a picture is its bytes and its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def inside(k: int) -> dict[str, Any]:
    """Picture k as it lies in a row of a Parquet file."""
    return {"bytes": encoded(k, "JPEG"), "path": f"{k}.jpg"}


def questions() -> list[tuple[int, str, str]]:
    """(picture, question, answer): two to be answered by yes or no, and three open ones."""
    return [
        (0, "Is there a pleural effusion?", "Yes"),
        (1, "Is there a pneumothorax?", "No"),
        (2, "What is in the pleural space?", "pneumothorax"),
        (3, "Which organ is enlarged?", "heart"),
        (4, "Which imaging modality is this?", "X-ray"),
    ]


def choices(k: int) -> tuple[str, list[str], int]:
    """(question, four choices, which is right) of picture k."""
    words = [one for _, _, one in PICTURES]
    listed = [words[(k + step) % len(words)] for step in range(4)]
    turned = listed[k % 4 :] + listed[: k % 4]
    return "Which finding does this image show?", turned, turned.index(words[k])


def report(k: int) -> tuple[str, str]:
    """(findings, impression) of picture k."""
    true = " ".join(one.sentence for one in study(k).truth())
    return (true or "The lungs are clear. No pleural effusion or pneumothorax."), (true or "No abnormality.")


def vqa() -> None:
    """VQA-RAD, SLAKE, PathVQA."""
    listed = questions()
    for k, _, _ in listed:
        put(SAMPLES / "vqa-rad" / "VQA_RAD Image Folder" / f"synthetic{k}.jpg", k)
        put(SAMPLES / "slake" / "imgs" / f"xmlab{k}" / "source.jpg", k)
        put(SAMPLES / "path-vqa" / "images" / "test" / f"test_{k:04d}.jpg", k)
    put_json(
        SAMPLES / "vqa-rad" / "VQA_RAD Dataset Public.json",
        [
            {
                "qid": number,
                "phrase_type": "test_freeform",
                "image_name": f"synthetic{k}.jpg",
                "image_organ": "CHEST",
                "question": question,
                "question_type": "PRES" if answer in ("Yes", "No") else "OTHER",
                "answer": answer,
                "answer_type": "CLOSED" if answer in ("Yes", "No") else "OPEN",
            }
            for number, (k, question, answer) in enumerate(listed)
        ],
    )
    in_chinese = {1: ("图像中有气胸吗？", "没有"), 4: ("这是什么成像方式？", "X光")}
    rows = []
    for number, (k, question, answer) in enumerate(listed):
        asked, said = in_chinese.get(number, (question, answer))
        rows.append(
            {
                "img_id": k,
                "img_name": f"xmlab{k}/source.jpg",
                "question": asked,
                "answer": said,
                "q_lang": "zh" if number in in_chinese else "en",
                "location": "Lung",
                "modality": "X-Ray",
                "answer_type": "CLOSED" if answer in ("Yes", "No") else "OPEN",
                "base_type": "vqa",
                "content_type": "Abnormality",
                "triple": ["vhead", "_", "_"],
                "qid": 10 + number,
            }
        )
    put_json(SAMPLES / "slake" / "test.json", rows)
    put_json(
        SAMPLES / "path-vqa" / "qas" / "test" / "test_qa.json",
        [{"image": f"test_{k:04d}", "question": asked, "answer": said.lower()} for k, asked, said in listed],
    )


def multiple_choice() -> None:
    """PMC-VQA, OmniMedVQA, MMMU, MedXpertQA-MM, MedFrameQA."""
    pmc, omni, mmmu, expert, frames = [], [], [], [], []
    for k in range(5):
        question, listed, right = choices(k)
        put(SAMPLES / "pmc-vqa" / "figures" / f"PMC{k}_F1.jpg", k)
        put(SAMPLES / "omnimed-vqa" / "Images" / "Synthetic" / f"{k}.png", k)
        put(SAMPLES / "medxpert-qa-mm" / "images" / f"MM-{k}-a.jpeg", k)
        pmc.append(
            {
                "index": k,
                "Figure_path": f"PMC{k}_F1.jpg",
                "Caption": "A synthetic chest radiograph.",
                "Question": f" {question}",
                **{f"Choice {LETTERS[n]}": f" {LETTERS[n]}:{one} " for n, one in enumerate(listed)},
                "Answer": LETTERS[right],
                "split": "test",
            }
        )
        omni.append(
            {
                "dataset": "Synthetic",
                "question_id": f"Synthetic_{k:04d}",
                "question_type": "Disease Diagnosis",
                "question": question,
                "gt_answer": listed[right],
                "image_path": f"Images/Synthetic/{k}.png",
                **{f"option_{LETTERS[n]}": one for n, one in enumerate(listed)},
                "modality_type": "X-Ray",
            }
        )
        mmmu.append(
            {
                "id": f"validation_Clinical_Medicine_{k + 1}",
                "question": f"<image 1> {question}",
                "options": str(listed),
                "explanation": "",
                "image_1": inside(k),
                "image_2": inside(1) if k == 4 else None,
                "img_type": "['Body Scans: X-Ray']",
                "answer": LETTERS[right],
                "topic_difficulty": "Easy",
                "question_type": "multiple-choice",
                "subfield": "Clinical Radiology",
            }
        )
        expert.append(
            {
                "id": f"MM-{k}",
                "question": f"{question}\n\nAnswer Choices: "
                + " ".join(f"({LETTERS[n]}) {one}" for n, one in enumerate(listed)),
                "options": {LETTERS[n]: one for n, one in enumerate(listed)},
                "label": LETTERS[right],
                "images": [f"MM-{k}-a.jpeg"],
                "medical_task": "Diagnosis",
                "body_system": "Respiratory",
                "question_type": "Understanding",
            }
        )
        frames.append(
            {
                "question_id": f"frame-{k}",
                "question": "Which finding does the second image show that the first does not?",
                "options": listed if "none" not in listed else [*listed, "mass"],
                "correct_answer": LETTERS[right],
                "image_1": inside(1),
                "image_2": inside(k),
                "image_3": inside(k) if k == 2 else None,
                "system": "respiratory",
                "organ": "lung",
                "modality": "X-ray",
                "video_id": f"video-{k}",
            }
        )
    put_csv(SAMPLES / "pmc-vqa" / "test_2.csv", pmc)
    put_json(SAMPLES / "omnimed-vqa" / "QA_information" / "Open-access" / "Synthetic.json", omni)
    put_parquet(SAMPLES / "mmmu-med" / "Clinical_Medicine" / "validation-00000-of-00001.parquet", mmmu)
    put_lines(SAMPLES / "medxpert-qa-mm" / "MM" / "test.jsonl", expert)
    put_parquet(SAMPLES / "medframe-qa" / "test-00000-of-00001.parquet", frames)


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


def reports() -> None:
    """IU X-ray, MIMIC-CXR, CheXpert Plus, Rad-ReStruct."""
    iu, split, plus = [], [], []
    for k in range(5):
        findings, impression = report(k)
        put(SAMPLES / "iu-xray" / "images" / f"CXR{k}" / "0.png", k)
        iu.append({"id": f"CXR{k}", "report": findings, "image_path": [f"CXR{k}/0.png"], "split": "test"})
        subject, number, image = f"1000000{k}", f"5000000{k}", f"dicom-{k}"
        top = SAMPLES / "mimic-cxr" / "files" / "p10" / f"p{subject}"
        put(top / f"s{number}" / f"{image}.jpg", k)
        text = f" FINAL REPORT\n EXAMINATION: CHEST\n\n FINDINGS: {findings}\n\n IMPRESSION: {impression}\n"
        put_text(top / f"s{number}.txt", text)
        split.append({"dicom_id": image, "study_id": number, "subject_id": subject, "split": "test"})
        name = f"valid/patient{k}/study1/view1_frontal.jpg"
        put(SAMPLES / "chexpert-plus" / "PNG" / Path(name).with_suffix(".png"), k)
        plus.append(
            {
                "path_to_image": name,
                "frontal_lateral": "Frontal",
                "deid_patient_id": f"patient{k}",
                "report": f"FINDINGS: {findings} IMPRESSION: {impression}",
                "section_findings": findings,
                "section_impression": impression,
                "split": "valid",
            }
        )
    put_json(SAMPLES / "iu-xray" / "annotation.json", {"train": [], "val": [], "test": iu})
    put_csv(SAMPLES / "mimic-cxr" / "mimic-cxr-2.0.0-split.csv.gz", split)
    put_csv(SAMPLES / "chexpert-plus" / "df_chexpert_plus_240401.csv", plus)
    closed = {"answer_type": "single_choice", "options": ["yes", "no"], "path": "pleura_signs"}
    several = {
        "answer_type": "multi_choice",
        "options": ["left costophrenic angle", "right costophrenic angle", "no selection"],
        "path": "pleura_signs_effusion_body_region",
    }
    side = study(0).truth()[0].side
    first = ["Are there any signs in the pleura?", ["yes"]]
    second = ["Is there an effusion in the pleura?", ["yes"]]
    put(SAMPLES / "rad-restruct" / "images" / "CXR0_IM-0001.png", 0)
    put(SAMPLES / "rad-restruct" / "images" / "CXR1_IM-0001.png", 1)
    put_json(
        SAMPLES / "rad-restruct" / "test_qa_pairs" / "0.json",
        [
            [*first, [], closed],
            [*second, [first], closed],
            ["In which part of the body?", [f"{side} costophrenic angle"], [first, second], several],
        ],
    )
    put_json(
        SAMPLES / "rad-restruct" / "test_qa_pairs" / "1.json",
        [
            ["Are there any signs in the pleura?", ["no"], [], closed],
            ["Are there any foreign objects?", ["no"], [], closed],
        ],
    )
    put_json(
        SAMPLES / "rad-restruct" / "id_to_img_mapping_frontal_reports.json",
        {"0": ["CXR0_IM-0001"], "1": ["CXR1_IM-0001"]},
    )


def rad_bench() -> None:
    """RadBench's five tasks."""
    top, away = SAMPLES / "rad-bench", "/authors/disk/images"
    for task in ("modality", "diagnosis", "vqa", "report"):
        for k in range(5):
            put(top / task / "images" / f"{k}.png", k)
    put_csv(
        top / "modality" / "radio_modality_test.csv",
        [{"image_path": f"{away}/{k}.png", "answer": "X-ray"} for k in range(5)],
    )
    put_csv(
        top / "diagnosis" / "chestxray_balance_test.csv",
        [
            {"image_path": f"{away}/{k}.png", "disease": "pleural effusion", "label": int(k == 0)}
            for k in range(5)
        ],
    )
    put_csv(
        top / "vqa" / "vqarad_test.csv",
        [
            {"img_root_dir": away, "Figure_path": f"{k}.png", "Question": asked, "Answer": said}
            for k, asked, said in questions()
        ],
    )
    put_csv(
        top / "report" / "mimic_caption_test.csv",
        [{"image_path": f"{away}/{k}.png", "caption": report(k)[0]} for k in range(5)],
    )
    rows = []
    for k in range(5):
        stack = np.repeat(pixels(k)[::3, ::3][None, None, :, :, None], 3, axis=1)
        folder = top / "rationale" / "npy"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{k}.npy", np.repeat(stack, 2, axis=4).astype(np.uint8))
        rows.append(
            {
                "npy_path": f"{away}/{k}.npy",
                "title": PICTURES[k][2].capitalize(),
                "pat": "Adult.",
                "pre": "Cough.",
                "articles": [report(k)[0]],
                "radiographic_features": [report(k)[1]],
            }
        )
    put_json(top / "rationale" / "radiology_article_npy_test.json", rows)


def main() -> None:
    """Write them all anew."""
    shutil.rmtree(SAMPLES, ignore_errors=True)
    for write in (vqa, multiple_choice, in_words, reports, rad_bench):
        write()
    size = sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file())
    print(f"{SAMPLES}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
