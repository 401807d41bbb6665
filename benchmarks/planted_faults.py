"""Are faults found, and nothing else? Faults of every kind are planted at random in a clean set that this script makes.

Faults of objects, pictures and splits are planted in one COCO folder, each on a picture of its own; those of a set as a
whole (a category without a name, say) in one set after another; those that only another format can have in a copy in
that format. All must be found by their code, nothing must be found where nothing was planted, nothing on the clean set,
and no error in the corrected copy, or on the real sets of TRACESIGHT_DATA. Exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import planted
import planted_sets
from figures import Missing, data_folder, row, run, write

from tracesight.data.checks.everything import check
from tracesight.data.fix import write_fixed
from tracesight.data.formats import read_sets, write_sets
from tracesight.data.kinds import every_kind

WIDTHS = (30, 9, 9)
SOUND = ("nuclei", "coco64", "bccd")  # real sets without errors


def main() -> bool:
    """Whether everything was found and nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file that receives the figures")
    asked = parser.parse_args()
    row(("kind", "planted", "found"), WIDTHS)
    with tempfile.TemporaryDirectory() as folder:
        found, false = _of_one_set(Path(folder) / "data", asked.times, asked.seed)
        clean = planted.clean_set(Path(folder) / "clean" / "train", 60, asked.seed + 2)
        clean.write()
        found |= _of_sets(clean.folder, asked.times, asked.seed)
        found |= _of_formats(Path(folder), asked.times, asked.seed)
        sets, faults = read_sets(clean.folder)
        on_clean = len(check(sets, faults).findings)
    for code in every_kind():
        if code in found:
            row((code, asked.times, found[code]), WIDTHS)
    unplanted = sorted(every_kind().keys() - found.keys() - {"picture-channels"})  # of a network, not of data
    errors = _real()
    print(f"found where nothing was planted: {len(false)}; on the clean set: {on_clean}")
    print(f"kinds that were not planted: {', '.join(unplanted) or 'none'}")
    for line in false[:20]:
        print(f"  {line}")
    write(asked.json, {}, {"found": found, "false": len(false), "clean": on_clean, "real": errors})
    complete = all(count == asked.times for count in found.values())
    return complete and not false and not on_clean and not unplanted and not any(errors.values())


def _of_one_set(folder: Path, times: int, seed: int) -> tuple[dict[str, int], list[str]]:
    made = planted.plant(folder, times, seed)
    began = time.perf_counter()
    sets, faults = read_sets(folder)
    report = check(sets, faults, mend_warnings=True)
    seconds = time.perf_counter() - began
    missed, false = planted.judged(made, report.findings)
    counts = {code: times for one in made.values() for code, _, _ in one.planted}
    for code, _, _ in missed:
        counts[code] -= 1
    write_fixed(str(folder), report, folder.parent / "fixed")
    left = check(*read_sets(folder.parent / "fixed")).count("error")
    pictures = sum(len(one.images) for one in made.values())
    print(f"{pictures} pictures read and checked in {seconds:.1f} s; errors left in the corrected copy: {left}")
    return counts, false + ["an error is left in the corrected copy"] * left


def _of_sets(folder: Path, times: int, seed: int) -> dict[str, int]:
    dataset = read_sets(folder)[0]["all"]
    counts = {}
    for code, fault in planted_sets.SET_FAULTS.items():
        rng = np.random.default_rng(seed)
        reports = (check({"train": fault(dataset, rng)}, workers=0) for _ in range(times))
        counts[code] = sum(any(finding.kind.code == code for finding in report.findings) for report in reports)
    whole = (check({"train": dataset, "val": dataset.subset(range(k % 50 + 1))}, workers=0) for k in range(times))
    counts["splits-same"] = sum([f.kind.code for f in report.findings].count("splits-same") for report in whole)
    return counts


def _of_formats(folder: Path, times: int, seed: int) -> dict[str, int]:
    counts = {}
    for code, (format, fault) in planted_sets.FORMAT_FAULTS.items():
        clean = planted.clean_set(folder / code / "train", times + 5, seed)
        clean.write()
        write_sets({"train": read_sets(clean.folder)[0]["all"]}, folder / code / "data", format)
        counts[code] = 0
        for place in range(times):
            fault(folder / code / "data", place)
            if code in planted_sets.ONE_A_SET:
                counts[code] += any(finding.kind.code == code for finding in read_sets(folder / code / "data")[1])
        if code not in planted_sets.ONE_A_SET:
            sets, faults = read_sets(folder / code / "data")
            counts[code] = sum(finding.kind.code == code for finding in check(sets, faults, workers=0).findings)
    return counts


def _real() -> dict[str, int]:
    errors = {}
    for name in SOUND:
        try:
            errors[name] = check(*read_sets(data_folder(name))).count("error")
            print(f"errors on {name}: {errors[name]}")
        except Missing as error:
            print(f"{name} was not looked at: {error}")
    return errors


if __name__ == "__main__":
    run(main)
