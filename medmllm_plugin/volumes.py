"""How a request becomes a prompt for a model that sees whole volumes: slices of one stack as one volume.

Such models were taught by images and a short question. So nothing is told of the series, and no instruction
stands before the images; what a user says of the patient comes quoted, as for other models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medmllm_plugin.codes import site
from medmllm_plugin.described import earlier
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import plane_name
from medmllm_plugin.prompts import Part, PicturePart, Prompt, TextPart, Turn, VolumePart
from medmllm_plugin.quoting import QUESTION_LENGTH, plain
from medmllm_plugin.request import Request
from medmllm_plugin.slice import Montage, Slice
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import FileImage
from medmllm_plugin.tasks import common_words

UPRIGHT = {"axial": ("P", "L"), "coronal": ("I", "L"), "sagittal": ("I", "P")}
"""The lower and the right edge of pictures as reports show them."""

OPPOSITE = {"P": "A", "L": "R", "I": "S"}


def volume_prompt(request: Request, context: Sequence[str] = ()) -> Prompt:
    """The prompt of a request that shows pictures.

    Args:
        request: What is asked.
        context: What is known of the patient, quoted, as lines.
    """
    words = common_words(request.language)
    parts: list[Part] = [TextPart(text=words["current"])] if request.priors else []
    number = volumes = 0
    for k, slices in enumerate((request.slices, *request.priors)):
        if k:
            parts.append(TextPart(text=earlier(slices, words)))
        for group in stacks(slices):
            shown = [slices.picture(one).pixels for one in group]
            turned = lies_turned(slices.picture(group[0]))
            if len(group) == 1 and not any(turned):
                parts.append(PicturePart(number=number + group[0], pixels=shown[0]))
                continue
            volumes += 1
            steps = tuple(slice(None, None, -1 if one else 1) for one in turned)
            parts.append(
                VolumePart(
                    number=volumes,
                    pictures=tuple(number + one for one in group),
                    planes=tuple(plane[steps] for plane in shown),
                    turned=turned,
                )
            )
        number += len(slices)
    said = request.task.said_in(request.language)
    lines = [said.volume or said.prose, *_focus(request), *context]
    asked = [one.question for one in request.history] + [request.question or ""]
    turns: list[Turn] = []
    parts.append(TextPart(text="\n".join([*lines, *_asked(asked[0], request if len(asked) == 1 else None)])))
    for position, (one, question) in enumerate(zip(request.history, asked[1:], strict=True), 2):
        turns.append(Turn(role="assistant", text=plain(one.answer, longest=QUESTION_LENGTH)))
        last = request if position == len(asked) else None
        turns.append(Turn(role="user", text="\n".join(_asked(question, last))))
    return Prompt(system="", parts=tuple(parts), turns=tuple(turns))


def stacks(slices: SliceSet) -> list[tuple[int, ...]]:
    """The numbers of the pictures that are one volume together, in the order that they are shown first.

    Pictures of one series, plane, window and size are a volume, if they have places in the patient or are
    planes of one file; all others, such as frames of a film, stand by themselves, as do montages.
    """
    found: dict[object, list[int]] = {}
    ends = [part.pictures for part in slices.parts]
    series = [k for k, count in enumerate(ends) for _ in range(count)] or [0] * len(slices)
    for number, one in enumerate(slices.slices, 1):
        found.setdefault(_stack_of(one, series[number - 1], number), []).append(number)
    return [tuple(numbers) for numbers in found.values()]


def lies_turned(one: Slice) -> tuple[bool, bool]:
    """Whether the rows, and the columns, of a picture must be turned round for it to lie as reports show it.

    Such models learned sides from pictures that lie so, the patient's right on the left, and nothing tells
    them of others. Where nothing says how a picture lies, it stays.

    Raises:
        SettingsError: If it lies on its side.
    """
    edges = one.edges
    if not edges:
        return False, False
    plane = "" if one.to_patient is None else plane_name(one.to_patient).split()[-1]
    found, wanted = (edges["bottom"][:1], edges["right"][:1]), UPRIGHT.get(plane, ("I", "L"))
    if plane and any(one not in (other, OPPOSITE[other]) for one, other in zip(found, wanted, strict=True)):
        raise SettingsError(
            f"found {plane} pictures whose right edge is {found[1]} and lower edge {found[0]}, expected them "
            f"upright for a model that is told no directions; show them with --plan plane={plane}"
        )
    rows, columns = (one == OPPOSITE[other] for one, other in zip(found, wanted, strict=True))
    return rows, columns


def _stack_of(one: Slice, series: int, number: int) -> object:
    if isinstance(one.source, Montage):
        return number
    if one.to_patient is None:
        return (one.source.file, one.pixels.shape) if isinstance(one.source, FileImage) else number
    return series, one.window, plane_name(one.to_patient), tuple(one.edges.values()), one.pixels.shape


def _focus(request: Request) -> Iterator[str]:
    if request.focus:
        words = common_words(request.language)
        yield words["focus"].format(sites=words["comma"].join(site(key).words for key in request.focus))


def _asked(question: str, request: Request | None) -> Iterator[str]:
    """A question, with its choices where it is the one that is asked now."""
    if question:
        yield plain(question, longest=QUESTION_LENGTH)
    if request is not None and request.choices:
        yield "; ".join(plain(one, longest=QUESTION_LENGTH) for one in request.choices) + "?"
