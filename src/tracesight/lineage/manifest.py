"""The manifest of a data set: every file by its digest, what is known of where it comes from, and roots over all of it.

`docs/manifest.md` describes the format and how the roots are computed. What is decoded is decoded elsewhere
(`data/manifest.py`): rows come in, roots and JSON go out. It names no path outside the data, no host, no user and no
time of making, so that the same data gives the same file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tracesight.errors import UserError
from tracesight.lineage import merkle

FORMAT = "tracesight manifest"
VERSION = 1
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
ALL = "all"  # how the counts of data that is not divided are called

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRow(_Row):
    """A file: its path relative to the data, with `/`, the SHA-256 of its bytes, and how many they are."""

    name: str
    sha256: Digest
    bytes: int


class Sensor(_Row):
    """What took a picture. `about` is the label file's own word, the rest EXIF's."""

    make: str | None = None
    model: str | None = None
    lens: str | None = None
    serial: str | None = None
    about: str | None = None


class PictureRow(FileRow):
    """A picture file and what is known of it.

    labels: the digest of what its labels say. annotators: pseudonyms, unless names were asked for. location: latitude
    and longitude in degrees, only where asked for.
    """

    split: str | None = None
    labels: Digest
    objects: int
    licence: str | None = None
    source: str | None = None
    group: str | None = None
    captured_at: str | None = None
    sensor: Sensor | None = None
    location: tuple[float, float] | None = None
    annotators: tuple[str, ...] = ()


class Category(_Row):
    id: int
    name: str


class Count(_Row):
    """Pictures, and the objects on them; of a category, those of it."""

    pictures: int
    objects: int


class SplitRoots(_Row):
    """Merkle roots of one split alone, under the categories of the whole; a run record holds the same."""

    pictures: Digest
    labels: Digest


class SplitCount(Count):
    """categories: by id; those without an object are left out."""

    categories: dict[int, Count]
    roots: SplitRoots


class Annotator(_Row):
    """Who drew objects: how many, on how many pictures, and from when to when where the labels say it."""

    id: str
    objects: int
    pictures: int
    first: str | None = None
    last: str | None = None


class SensorCount(Sensor):
    """A sensor, how many pictures it took, and from when to when."""

    pictures: int
    first: str | None = None
    last: str | None = None


class Roots(_Row):
    """Merkle roots. pictures, labels, split: of the content, whatever files are called. label_files: of their bytes."""

    pictures: Digest
    labels: Digest
    split: Digest
    label_files: Digest


class Manifest(_Row):
    """All of it.

    title, controller, licence, source: of the data as a whole, as whoever makes the manifest says. pseudonyms: what
    they are made with ("none": names stand as they are). findings: what was wrong with the labels, by code.
    """

    format: Literal["tracesight manifest"] = FORMAT
    version: Literal[1] = VERSION
    made_by: str
    title: str | None = None
    controller: str | None = None
    licence: str | None = None
    source: str | None = None
    roots: Roots
    pseudonyms: Literal["pictures root", "key", "none"] = "pictures root"
    splits: dict[str, SplitCount]
    categories: tuple[Category, ...]
    licences: dict[str, int] = Field(default_factory=dict)
    sensors: tuple[SensorCount, ...] = ()
    annotators: tuple[Annotator, ...] = ()
    tools: dict[str, int] = Field(default_factory=dict)
    findings: dict[str, int] = Field(default_factory=dict)
    label_files: tuple[FileRow, ...]
    pictures: tuple[PictureRow, ...]

    @cached_property
    def by_name(self) -> dict[str, FileRow]:
        """Every file, pictures and labels, by its path."""
        return {row.name: row for row in (*self.label_files, *self.pictures)}

    def dump(self) -> str:
        """JSON with a line for each file; what is not known is left out."""
        head = self.model_dump(mode="json", exclude_none=True, exclude={"label_files", "pictures"})
        text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        return f"{text},\n" + ",\n".join(
            f' "{name}": [' + ",".join(f"\n  {line}" for line in lines) + "\n ]"
            for name, lines in (
                ("label_files", _lines(_FILES, self.label_files)),
                ("pictures", _lines(_PICTURES, self.pictures)),
            )
        ) + "\n}\n"  # fmt: skip


_FILES, _PICTURES = TypeAdapter(tuple[FileRow, ...]), TypeAdapter(tuple[PictureRow, ...])


def _lines(adapter: TypeAdapter[Any], rows: Sequence[FileRow]) -> list[str]:
    """Each row as JSON. All at once: one by one takes three times as long."""
    text = adapter.dump_json(rows, exclude_defaults=True).decode()[1:-1]
    return text.replace('},{"name":', '}\n{"name":').split("\n") if rows else []  # neither stands bare in a string


def load_manifest(path: Path) -> Manifest:
    """A manifest from its file. Raises UserError: it cannot be read, is of another version, or its roots are wrong."""
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: not a manifest that can be read ({where}: {first['msg']})") from None
    found = roots_of(manifest.pictures, manifest.label_files, manifest.categories)
    wrong = [name for name in Roots.model_fields if getattr(found, name) != getattr(manifest.roots, name)]
    for split, count in manifest.splits.items():
        rows = [row for row in manifest.pictures if (row.split or ALL) == split]
        if split_roots(rows, manifest.categories) != count.roots:
            wrong.append(split)
    if wrong:
        raise UserError(f"{path}: has been altered: its rows do not give its root of {wrong[0].replace('_', ' ')}")
    return manifest


def is_manifest(path: Path) -> bool:
    """Whether a file says that it is one."""
    try:
        with path.open("rb") as file:
            return f'"format": "{FORMAT}"'.encode() in file.read(200)
    except OSError:
        return False


def roots_of(pictures: Iterable[PictureRow], label_files: Iterable[FileRow], categories: Iterable[Category]) -> Roots:
    """The four roots. Neither the order of rows nor names of files have a say in them."""
    pictures, leaves = list(pictures), merkle.leaf_hashes
    table = canonical(["categories", [[row.id, row.name] for row in sorted(categories, key=lambda r: (r.id, r.name))]])
    splits = {split: canonical([split]).removesuffix(b"]") for split in {row.split for row in pictures}}
    return Roots(
        pictures=pictures_root(row.sha256 for row in pictures),
        labels=merkle.root(leaves([table, *(f'["{row.sha256}","{row.labels}"]'.encode() for row in pictures)])),
        split=merkle.root(leaves(b'%b,"%b"]' % (splits[row.split], row.sha256.encode()) for row in pictures)),
        label_files=pictures_root(row.sha256 for row in label_files),
    )


def split_roots(pictures: Iterable[PictureRow], categories: Iterable[Category]) -> SplitRoots:
    """The roots of one split, of whose pictures these are the rows."""
    roots = roots_of(pictures, (), categories)
    return SplitRoots(pictures=roots.pictures, labels=roots.labels)


def pictures_root(digests: Iterable[str]) -> str:
    """The root of files by the SHA-256 of each."""
    return merkle.root(merkle.leaf_hashes(map(bytes.fromhex, digests)))


def picture_leaf(sha256: str) -> bytes:
    """The leaf of a file in the trees of pictures and of label files: its digest's 32 bytes are the data."""
    return merkle.leaf_hash(bytes.fromhex(sha256))


def prove_picture(manifest: Manifest, sha256: str) -> merkle.Proof:
    """That a picture is in the root of pictures, for who has neither the other pictures nor the manifest.

    `merkle.holds(proof, picture_leaf(sha256), root)` checks it. Raises KeyError: it is not in there.
    """
    return merkle.prove((picture_leaf(row.sha256) for row in manifest.pictures), picture_leaf(sha256))


def canonical(value: Any) -> bytes:
    """The one way to write lists, texts, whole numbers and null: JSON without spaces, in UTF-8 (RFC 8785 of those)."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def count_licences(pictures: Iterable[PictureRow]) -> dict[str, int]:
    """Pictures by licence, most first."""
    counts = Counter(row.licence for row in pictures if row.licence is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def count_sensors(pictures: Iterable[PictureRow]) -> tuple[SensorCount, ...]:
    """Pictures by sensor with their times, most first."""
    times: dict[Sensor, list[str]] = {}
    counts: Counter[Sensor] = Counter()
    for row in pictures:
        if row.sensor is not None:
            counts[row.sensor] += 1
            times.setdefault(row.sensor, []).extend([row.captured_at] if row.captured_at else [])
    order = sorted(counts, key=lambda sensor: (-counts[sensor], sensor.model_dump_json()))
    return tuple(
        SensorCount(
            **sensor.model_dump(), pictures=counts[sensor],
            first=min(times[sensor], default=None), last=max(times[sensor], default=None),
        )
        for sensor in order
    )  # fmt: skip
