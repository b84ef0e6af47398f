"""Samples of chest X-ray reports, and of RadBench's five tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.eval_samples.making import (
    PICTURES,
    SAMPLES,
    pixels,
    put,
    put_csv,
    put_json,
    put_text,
    questions,
    report,
    study,
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
