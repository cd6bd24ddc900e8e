"""Train what the studies of the ledger lack, the decisive ones first: `python studies/ledger.py`.

    OMP_NUM_THREADS=1 nohup python studies/ledger.py --minutes 120 > ledger.log &

Safe to kill and to start again: finished trainings are in `trainings.jsonl`, an unfinished one
resumes.
"""

from __future__ import annotations

import argparse

import batch_size
import composition
import dictionaries
import distances
import heads
import instdisc_table1
import mining
import moco_v2
import positives
import proximal
import ye_ablations
from harness import Study, run

STUDIES: tuple[Study, ...] = tuple(
    module.STUDY
    for module in (
        dictionaries,
        positives,
        ye_ablations,
        batch_size,
        composition,
        instdisc_table1,
        mining,
        heads,
        proximal,
        moco_v2,
        distances,
    )
)


def main() -> None:
    """Run the studies until the minutes are over."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float)
    run(STUDIES, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
