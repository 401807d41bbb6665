"""How many objects of each category every picture of a folder holds, as CSV on standard output.

python examples/count_objects.py BUNDLE FOLDER > counts.csv
"""

from __future__ import annotations

import csv
import sys
from collections import Counter

import tracesight as ts
from tracesight.errors import PartialFailure


def main(bundle_folder: str, pictures: str) -> None:
    bundle = ts.load(bundle_folder)
    names = list(bundle.categories.values())
    writer = csv.writer(sys.stdout)
    writer.writerow(["picture", *names])
    try:
        for scene in bundle.predict(pictures):
            counts = Counter(found.category for found in scene.objects)
            writer.writerow([scene.picture.path, *(counts[name] for name in names)])
    except PartialFailure as some:
        # Every picture that can be read has its row by now.
        sys.exit(f"{some}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
