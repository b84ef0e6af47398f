"""Write the five synthetic items that ship for each benchmark, in its published format.

    python -m tools.eval_samples

The pictures are our phantoms, so every answer is right; the questions in words are plain facts. Nothing of
any published benchmark is in them.
"""

from __future__ import annotations

import shutil

from tools.eval_samples.making import SAMPLES
from tools.eval_samples.pictures import multiple_choice, vqa
from tools.eval_samples.reports import rad_bench, reports
from tools.eval_samples.words import in_words


def main() -> None:
    """Write them all anew."""
    shutil.rmtree(SAMPLES, ignore_errors=True)
    for write in (vqa, multiple_choice, in_words, reports, rad_bench):
        write()
    size = sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file())
    print(f"{SAMPLES}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
