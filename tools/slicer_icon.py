"""Draws the extension's icon: an axial slice of a chest with a framed finding, as PNG of 128 x 128 px.

python -m tools.slicer_icon slicer_module/MedMLLM/Resources/Icons/MedMLLM.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE, FINER = 128, 8


def main() -> None:
    """Write the file that is named."""
    icon().save(Path(sys.argv[1]), optimize=True)


def icon() -> Image.Image:
    """The icon: seen on light and on dark ground, and still readable at 24 px."""
    image = Image.new("RGBA", (SIZE * FINER,) * 2)
    draw = ImageDraw.Draw(image)

    def at(*numbers: float) -> list[float]:
        return [number * FINER for number in numbers]

    draw.rounded_rectangle(at(3, 3, 125, 125), radius=24 * FINER, fill="#16212e")
    draw.ellipse(at(12, 26, 116, 106), fill="#9fb2c4")
    draw.ellipse(at(18, 31, 110, 101), fill="#5f7386")
    draw.ellipse(at(24, 36, 59, 93), fill="#0d141c")
    draw.ellipse(at(69, 36, 104, 93), fill="#0d141c")
    draw.ellipse(at(53, 42, 82, 74), fill="#b9c8d6")
    draw.ellipse(at(56, 80, 72, 96), fill="#e8eef4")
    draw.ellipse(at(36, 52, 47, 63), fill="#e8eef4")
    draw.rounded_rectangle(at(29, 45, 54, 70), radius=3 * FINER, outline="#ffb000", width=4 * FINER)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
