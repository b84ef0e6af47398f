"""Nodes that are killed at random while studies come in: what is lost, what is said twice, what is stuck.

python -m tests.siege --kills 200 --database postgres
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from math import inf
from pathlib import Path

from tests.battlefield import Outcome, battlefield, clean_up_when_terminated


def besiege(
    folder: Path, *, database: str, nodes: int, kills: int, minutes: float = inf, seed: int = 0
) -> Outcome:
    """Send studies to nodes, kill these at random, and look at what is there in the end.

    Args:
        folder: To work in, empty.
        database: `sqlite` (then one node) or `postgres`.
        nodes: How many share the work.
        kills: How many to kill.
        minutes: After which no more are killed.
        seed: Of what is killed when.
    """
    chance = random.Random(seed)
    place = "postgres" if database == "postgres" else "db.sqlite"
    with battlefield(folder, database=place, nodes=nodes) as field:
        outcome, until = field.outcome, time.monotonic() + 60 * minutes
        while outcome.kills < kills and time.monotonic() < until:
            field.senders.one_more()
            time.sleep(chance.uniform(0.1, 2.0))
            victim = chance.choice(field.fleet)
            victim.kill()
            outcome.kills += 1
            time.sleep(chance.choice((0.0, 0.0, 0.5, 8.0 if nodes > 1 else 0.5)))
            victim.start()
            if chance.random() < 0.3:
                field.senders.again()
            if chance.random() < 0.1:
                field.engine.fail(chance.uniform(1, 15))
            if field.pacs is not None and chance.random() < 0.15:
                field.pacs.kill()
                outcome.pacs_kills += 1
                time.sleep(chance.uniform(0, 5))
                field.pacs.start()
        field.reckon()
    return outcome


def main() -> int:
    """Besiege nodes and print what became of it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="postgres")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=inf, help="after which no more are killed")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    clean_up_when_terminated()
    folder = Path(tempfile.mkdtemp(prefix="siege-"))
    outcome = besiege(
        folder,
        database=asked.database,
        nodes=asked.nodes if asked.database == "postgres" else 1,
        kills=asked.kills,
        minutes=asked.minutes,
        seed=asked.seed,
    )
    sys.stdout.write(
        f"siege on {asked.database}: {outcome.kills} kills of a node, {outcome.pacs_kills} of the PACS, "
        f"{outcome.studies} studies, {outcome.acknowledged} images, {outcome.asked} answers of the engine, "
        f"{outcome.seconds:.0f} s: {outcome.wrong() or 'nothing lost, said twice or stuck'}\n"
    )
    if not outcome.is_sound:
        sys.stdout.write(f"see {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
