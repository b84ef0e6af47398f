"""Samples of questions on pictures."""

from __future__ import annotations

from tools.eval_samples.making import (
    LETTERS,
    SAMPLES,
    choices,
    inside,
    put,
    put_csv,
    put_json,
    put_lines,
    put_parquet,
    questions,
)


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
