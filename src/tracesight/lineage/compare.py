"""What became of pictures between two states of a data set, told by digests and names alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tracesight.lineage.manifest import Manifest


class Change(NamedTuple):
    """One difference.

    what: "picture", "category", "object", "mask", … . how: "added", "removed", "moved", "renamed", … . name: of the
    picture or category, as it is now, or was before it went. about: which object, from what to what, and the like. by,
    time: who made the label and when, where the labels say it.
    """

    what: str
    how: str
    name: str
    about: str = ""
    by: str | None = None
    time: str | None = None

    def __str__(self) -> str:
        signed = "".join((f", by {self.by}" if self.by else "", f", {self.time}" if self.time else ""))
        return f"{self.what} {self.how}: {self.name}{f': {self.about}' if self.about else ''}{signed}"

    def to_json(self) -> dict[str, Any]:
        """The fields that say something."""
        return {key: value for key, value in self._asdict().items() if value}


class Place(NamedTuple):
    """Where a picture is: its split (None where the data is not divided), its name, the SHA-256 of its bytes."""

    split: str | None
    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.split}/{self.name}" if self.split else self.name


def pairs_of(before: Sequence[Place], after: Sequence[Place]) -> list[tuple[int | None, int | None]]:
    """Positions of what is the same picture: by content, else by split and name; None on the side that lacks it.

    Of several copies those with the same split and name are paired first, then the same split, then the same name.
    """
    pairs: list[tuple[int | None, int | None]] = []
    left = _by(before, range(len(before)), lambda place: place.sha256)
    right = _by(after, range(len(after)), lambda place: place.sha256)
    alone: tuple[list[int], list[int]] = ([], [])
    for digest in {**left, **right}:
        ours, theirs = left.get(digest, []), right.get(digest, [])
        for key in (lambda p: (p.split, p.name), lambda p: p.split, lambda p: p.name, lambda _: None):
            ours, theirs = _paired(before, after, ours, theirs, key, pairs)
        alone[0].extend(ours)
        alone[1].extend(theirs)
    gone, new = _paired(before, after, *alone, lambda place: (place.split, place.name), pairs)
    pairs += [(one, None) for one in gone] + [(None, one) for one in new]
    last = len(before)
    return sorted(pairs, key=lambda pair: (last if pair[0] is None else pair[0], -1 if pair[1] is None else pair[1]))


def picture_changes(
    before: Sequence[Place], after: Sequence[Place], pairs: Sequence[tuple[int | None, int | None]]
) -> Iterator[Change]:
    """Pictures added, removed, moved (to another split), renamed, or replaced (by another file of the same name)."""
    for old, new in pairs:
        if old is None:
            assert new is not None
            yield Change("picture", "added", str(after[new]))
        elif new is None:
            yield Change("picture", "removed", str(before[old]))
        else:
            was, now = before[old], after[new]
            if was.sha256 != now.sha256:
                yield Change("picture", "replaced", str(now), "other content under the same name")
            elif was.split != now.split:
                yield Change("picture", "moved", str(now), f"was {was}")
            elif was.name != now.name:
                yield Change("picture", "renamed", str(now), f"was {was}")


def manifest_changes(before: Manifest, after: Manifest) -> list[Change]:
    """What two manifests tell: pictures, the labels of each, and categories."""
    was, now = ([Place(row.split, row.name, row.sha256) for row in one.pictures] for one in (before, after))
    pairs = pairs_of(was, now)
    changes = list(picture_changes(was, now, pairs))
    for old, new in pairs:
        if old is not None and new is not None and before.pictures[old].labels != after.pictures[new].labels:
            one, other = before.pictures[old], after.pictures[new]
            counts = "" if one.objects == other.objects else f"{one.objects} objects before, {other.objects} now"
            changes.append(Change("labels", "changed", other.name, counts, ", ".join(other.annotators) or None))
    table = {row.id: row.name for row in before.categories}, {row.id: row.name for row in after.categories}
    return [*category_changes(table[0], table[1]), *changes]


def category_changes(before: dict[int, str], after: dict[int, str]) -> Iterator[Change]:
    """Categories added, removed or renamed (the same id under a name that was not there)."""
    renamed = renames(before, after)
    for number, name in renamed.items():
        yield Change("category", "renamed", name, f"was {before[number]}")
    told = {before[number] for number in renamed} | set(renamed.values())
    for name in sorted({*before.values(), *after.values()} - told):
        if name not in after.values():
            yield Change("category", "removed", name)
        elif name not in before.values():
            yield Change("category", "added", name)


def renames(before: dict[int, str], after: dict[int, str]) -> dict[int, str]:
    """The new name by id, of ids whose old name has gone and whose new name was not there."""
    gone, new = set(before.values()) - set(after.values()), set(after.values()) - set(before.values())
    return {number: after[number] for number in before if before[number] in gone and after.get(number) in new}


def _by(places: Sequence[Place], positions: Any, key: Any) -> dict[Any, list[int]]:
    found: dict[Any, list[int]] = defaultdict(list)
    for position in sorted(positions, key=lambda position: (str(places[position]), position)):
        found[key(places[position])].append(position)
    return found


def _paired(
    before: Sequence[Place], after: Sequence[Place], ours: list[int], theirs: list[int], key: Any,
    pairs: list[tuple[int | None, int | None]],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Pair what has the same key, and give back what is left."""
    if not ours or not theirs:
        return ours, theirs
    left, right = _by(before, ours, key), _by(after, theirs, key)
    for same in left.keys() & right.keys():
        matched = list(zip(left[same], right[same]))
        pairs.extend(matched)
        left[same], right[same] = left[same][len(matched) :], right[same][len(matched) :]
    return [p for rest in left.values() for p in rest], [p for rest in right.values() for p in rest]
