"""Manifests: every file by its digest, roots that belong to the content, and no more of persons than was asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from made_formats import MAKERS
from made_sets import write_json, write_set
from test_exif import tagged

from tracesight.data.formats import read_sets
from tracesight.data.manifest import Asked, base_of, manifest_of, names_of, roots_of_set, verify
from tracesight.errors import UserError
from tracesight.lineage import merkle
from tracesight.lineage.manifest import Manifest, is_manifest, load_manifest, picture_leaf, prove_picture

SIZES = [(40, 50), (60, 40), (50, 50)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "val")):
        write_set(tmp_path / "data" / split, SIZES, seed=number, categories=((3, "bolt"), (7, "nut")))
    return tmp_path / "data"


def made(data: Path, **asked: Any) -> Manifest:
    sets, findings = read_sets(data)
    return manifest_of(sets, base_of(data, sets), Asked(**asked), findings)


def test_processes_that_share_the_look_tell_the_same(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two sets; of the five objects of each some are drawn by two persons, with tools, at times."""

    def drawn(content: dict[str, Any]) -> None:
        for number, one in enumerate(content["annotations"]):
            one |= {"annotator": f"person {number % 2}", "tool": f"tool {number % 3}", "time": f"2024-05-0{1 + number}"}

    for split in ("train", "val"):
        changed(data / split, drawn)
    alone = made(data)
    assert alone.annotators and alone.tools
    monkeypatch.setattr("tracesight.data.manifest._MANY", 2)
    monkeypatch.setattr("tracesight.data.manifest._AT_ONCE", 2)
    sets, findings = read_sets(data)
    shared = manifest_of(sets, base_of(data, sets), Asked(), findings, processes=True)
    assert shared.dump() == alone.dump()


def changed(folder: Path, change: Any) -> None:
    """Read instances.json, hand it to `change`, write it back."""
    content = json.loads((folder / "instances.json").read_text())
    change(content)
    write_json(folder, content)


def tree(hashes: list[bytes]) -> bytes:
    """RFC 6962's tree, word for word."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return hashlib.sha256(b"\1" + tree(hashes[:k]) + tree(hashes[k:])).digest()


def test_another_program_recomputes_the_roots_from_the_files(data: Path) -> None:
    """As docs/manifest.md says it, with nothing of the package."""
    pictures, labels, split = [], [], []
    for name in ("train", "val"):
        content = json.loads((data / name / "instances.json").read_text())
        for image in content["images"]:
            digest = hashlib.sha256((data / name / "images" / image["file_name"]).read_bytes()).hexdigest()
            objects = []
            for a in content["annotations"]:
                if a["image_id"] == image["id"]:
                    x, y, w, h = (round(value * 1000) for value in a["bbox"])
                    mask = ["rle", *a["segmentation"]["size"], a["segmentation"]["counts"]]
                    objects.append([a["category_id"], [x, y, x + w, y + h], mask, 0, 0, None])
            objects.sort(key=lambda row: json.dumps(row, separators=(",", ":")).encode())
            row = [image["height"], image["width"], objects, [], None, []]
            said = hashlib.sha256(json.dumps(row, separators=(",", ":")).encode()).hexdigest()
            labels.append(json.dumps([digest, said], separators=(",", ":")).encode())
            pictures.append(bytes.fromhex(digest))
            split.append(json.dumps([name, digest], separators=(",", ":")).encode())
    labels.append(b'["categories",[[3,"bolt"],[7,"nut"]]]')
    files = [hashlib.sha256((data / name / "instances.json").read_bytes()).digest() for name in ("train", "val")]
    roots = made(data).roots
    for leaves, found in (
        (pictures, roots.pictures),
        (labels, roots.labels),
        (split, roots.split),
        (files, roots.label_files),
    ):
        assert found == tree(sorted(hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves)).hex()


def test_rows_and_counts(data: Path) -> None:
    manifest = made(data, title="screws", controller="Acme", licence="CC0-1.0", source="the hall")
    row = manifest.pictures[4]
    path = data / "val" / "images" / "picture1.png"
    assert (row.name, row.split, row.objects) == ("val/images/picture1.png", "val", 3)
    assert (row.sha256, row.bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    assert [one.name for one in manifest.label_files] == ["train/instances.json", "val/instances.json"]
    count = manifest.splits["train"]
    assert (count.pictures, count.objects) == (3, 9)
    assert {i: (c.pictures, c.objects) for i, c in count.categories.items()} == {3: (3, 5), 7: (3, 4)}
    assert (manifest.title, manifest.controller, manifest.licence, manifest.source) == (
        "screws", "Acme", "CC0-1.0", "the hall",
    )  # fmt: skip


def test_the_same_data_elsewhere_in_another_order_is_the_same(data: Path, tmp_path: Path) -> None:
    before = made(data)
    shutil.copytree(data, tmp_path / "else where")
    assert made(tmp_path / "else where").dump() == before.dump()

    def shuffle(content: dict[str, Any]) -> None:
        for rows in content.values():
            rows.reverse()
        for annotation in content["annotations"]:
            annotation["id"] += 1000

    changed(data / "train", shuffle)
    after = made(data)
    assert after.roots.label_files != before.roots.label_files  # the file is another one, what it says is the same
    assert after.roots.model_copy(update={"label_files": before.roots.label_files}) == before.roots


def test_each_root_belongs_to_its_matter(data: Path) -> None:
    def differing(before: Manifest, after: Manifest) -> set[str]:
        return {n for n in type(before.roots).model_fields if getattr(before.roots, n) != getattr(after.roots, n)}

    first = made(data)
    picture = data / "train" / "images" / "picture0.png"
    picture.rename(picture.with_name("renamed.png"))
    changed(data / "train", lambda c: c["images"][0].update(file_name="renamed.png"))
    renamed = made(data)
    assert differing(first, renamed) == {"label_files"}
    changed(data / "train", lambda c: c["annotations"][0].update(bbox=[1, 2, 10, 12]))
    moved = made(data)
    assert differing(renamed, moved) == {"labels", "label_files"}
    changed(data / "train", lambda c: c["annotations"][0].update(annotator="Jo"))
    assert differing(moved, made(data)) == {"label_files"}
    for name in ("train", "val"):
        (data / name).rename(data / f"{name}_")
    (data / "train_").rename(data / "val")
    (data / "val_").rename(data / "train")
    assert differing(moved, made(data)) == {"split", "label_files"}
    with (data / "val" / "images" / "renamed.png").open("ab") as file:
        file.write(b"\0")
    assert {"pictures", "labels", "split"} <= differing(moved, made(data))


def test_written_and_read(data: Path, tmp_path: Path) -> None:
    manifest = made(data)
    file = tmp_path / "manifest.json"
    file.write_text(manifest.dump(), encoding="utf-8")
    assert load_manifest(file) == manifest
    assert is_manifest(file)
    assert not is_manifest(data / "train" / "instances.json")
    assert not is_manifest(tmp_path / "none")
    assert json.loads(manifest.dump())["roots"]["pictures"] == manifest.roots.pictures


def test_the_schema_in_the_docs_is_that_of_the_format(data: Path) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schema" / "manifest-1.json").read_text("utf-8"))
    ours = Manifest.model_json_schema()  # whose wording belongs to pydantic's version
    assert schema["properties"].keys() == ours["properties"].keys()
    assert {name: list(part["properties"]) for name, part in schema["$defs"].items()} == {
        name: list(part["properties"]) for name, part in ours["$defs"].items()
    }
    jsonschema.validate(json.loads(made(data).dump()), schema)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["pictures"].pop(), "altered: its rows do not give its root of pictures"),
        (lambda m: m["pictures"][0].update(labels="0" * 64), "its root of labels"),
        (lambda m: m["pictures"][0].update(split="val"), "its root of split"),
        (lambda m: m["label_files"][0].update(sha256="0" * 64), "its root of label files"),
        (lambda m: m["categories"][0].update(name="screw"), "its root of labels"),
        (lambda m: m["splits"]["val"]["roots"].update(labels="0" * 64), "its root of val"),
        (lambda m: m.update(version=2), "not a manifest that can be read"),
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m["pictures"][0].update(sha256="xyz"), "pictures.0.sha256"),
    ],
)
def test_altered_manifests_are_refused(change: Any, message: str, data: Path, tmp_path: Path) -> None:
    content = json.loads(made(data).dump())
    change(content)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_manifest(file)


def test_a_picture_is_proved_to_be_in_the_root(data: Path) -> None:
    manifest = made(data)
    for row in manifest.pictures:
        proof = prove_picture(manifest, row.sha256)
        assert merkle.holds(proof, picture_leaf(row.sha256), manifest.roots.pictures)
        assert not merkle.holds(proof, picture_leaf("0" * 64), manifest.roots.pictures)
    with pytest.raises(KeyError):
        prove_picture(manifest, "0" * 64)


def test_roots_of_a_set_are_those_of_its_own_manifest(data: Path) -> None:
    train = read_sets(data)[0]["train"]
    roots = made(data / "train").roots
    assert roots_of_set(train) == {"pictures": roots.pictures, "labels": roots.labels}
    assert made(data).splits["train"].roots.model_dump() == roots_of_set(train)


@pytest.fixture
def people(data: Path) -> Path:
    """The set with annotators, tools, times, and a camera in one picture."""

    def sign(content: dict[str, Any]) -> None:
        for number, annotation in enumerate(content["annotations"]):
            annotation.update(annotator=("Jo Doe", "Max")[number % 2], tool="pen", time=f"2024-01-0{number + 1}")
        content["images"][0].update(file_name="camera.jpg", width=40, height=30, license=5, sensor="bench 2")
        content["licenses"] = [{"id": 5, "name": "CC BY 4.0"}]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"]]

    changed(data / "train", sign)
    camera = {"Make": "Maker", "Model": "M1", "BodySerialNumber": "SN0042", "DateTimeOriginal": "2024:05:06 07:08:09"}
    place = {
        "GPSLatitudeRef": "N",
        "GPSLatitude": (51.0, 0.0, 0.0),
        "GPSLongitudeRef": "W",
        "GPSLongitude": (1.0, 0.0, 0.0),
    }
    (data / "train" / "images" / "camera.jpg").write_bytes(tagged("JPEG", **camera, **place))
    return data


def test_what_is_known_of_origin_is_counted(people: Path) -> None:
    manifest = made(people, names=True)
    assert manifest.licences == {"CC BY 4.0": 1}
    assert manifest.tools == {"pen": 6}
    assert [(a.id, a.objects, a.pictures, a.first, a.last) for a in manifest.annotators] == [
        ("Jo Doe", 3, 2, "2024-01-05", "2024-01-09"), ("Max", 3, 2, "2024-01-04", "2024-01-08"),
    ]  # fmt: skip
    (sensor,) = manifest.sensors
    assert (sensor.make, sensor.model, sensor.about, sensor.pictures) == ("Maker", "M1", "bench 2", 1)
    assert sensor.first == sensor.last == "2024-05-06T07:08:09"
    assert manifest.pictures[0].captured_at == "2024-05-06T07:08:09"
    assert manifest.pictures[1].annotators == ("Jo Doe", "Max")


def test_names_serial_numbers_and_places_only_where_asked_for(people: Path) -> None:
    text = made(people).dump()
    for private in ("Jo Doe", "Max", "SN0042", "51.0", "serial", "location"):
        assert private not in text
    assert text.count("annotator-") == 2 + 4
    assert '"SN0042"' in made(people, serial=True).dump()
    assert "51.0" not in made(people, serial=True).dump()
    assert made(people, location=True).pictures[0].location == (51.0, -1.0)
    assert '"Jo Doe"' in made(people, names=True).dump()


def test_pseudonyms_belong_to_the_key(people: Path) -> None:
    plain, keyed, again, other = (made(people, key=key) for key in (None, b"k" * 16, b"k" * 16, b"x" * 16))
    assert keyed == again
    ids = [{one.id for one in manifest.annotators} for manifest in (plain, keyed, other)]
    assert all(len(one) == 2 for one in ids)
    assert not ids[0] & ids[1] and not ids[1] & ids[2]
    assert (plain.pseudonyms, keyed.pseudonyms) == ("pictures root", "key")
    assert plain.sensors[0].serial is None
    assert str(keyed.sensors[0].serial).startswith("sensor-")
    assert plain.roots == keyed.roots == made(people, names=True, serial=True, location=True).roots


def test_findings_are_counted(data: Path) -> None:
    changed(data / "train", lambda c: c["annotations"][0].update(bbox=[-0.5, 2, 10, 12]))
    assert made(data).findings == {"box-barely-outside": 1}


def test_what_differs_since_is_told(data: Path) -> None:
    manifest = made(data)

    def found() -> dict[str, list[str]]:
        sets = read_sets(data)[0]
        return verify(manifest, data, names_of(sets, data))

    assert found() == {"changed": [], "missing": [], "added": []}
    images = data / "train" / "images"
    with (images / "picture1.png").open("ab") as file:
        file.write(b"\0")
    shutil.copy(images / "picture0.png", images / "more.png")
    (images / "picture0.png").unlink()
    changed(data / "train", lambda c: c["images"][0].update(file_name="more.png"))
    assert found() == {
        "changed": ["train/images/picture1.png", "train/instances.json"],
        "missing": ["train/images/picture0.png"],
        "added": ["train/images/more.png"],
    }


def test_names_that_leave_the_data_are_refused(data: Path) -> None:
    manifest = made(data)
    for name in ("../x.png", "/etc/hostname"):
        rows = (manifest.pictures[0].model_copy(update={"name": name}), *manifest.pictures[1:])
        with pytest.raises(UserError, match="lies outside the data"):
            verify(manifest.model_copy(update={"pictures": rows}), data)


def test_a_label_file_has_names_below_the_folder_of_all_its_pictures(data: Path, tmp_path: Path) -> None:
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    shutil.copy(data / "train" / "instances.json", tmp_path / "coco" / "annotations" / "instances_a.json")
    shutil.copytree(data / "train" / "images", tmp_path / "coco" / "a")
    manifest = made(tmp_path / "coco" / "annotations" / "instances_a.json")
    assert [row.name for row in manifest.label_files] == ["annotations/instances_a.json"]
    assert manifest.pictures[0].name == "a/picture0.png"
    assert manifest.roots.pictures == made(data / "train").roots.pictures


LABEL_FILES = {
    "coco": {".json"},
    "voc": {".xml", ".png"},
    "yolo": {".txt", ".yaml"},
    "labelme": {".json"},
    "masks": {".png"},
}


@pytest.mark.parametrize("format", list(MAKERS))
def test_every_format_has_its_pictures_and_label_files(format: str, tmp_path: Path) -> None:
    MAKERS[format](tmp_path)
    manifest = made(tmp_path)
    assert len(manifest.pictures) == len({row.sha256 for row in manifest.pictures}) >= 4
    suffixes = {Path(row.name).suffix for row in manifest.label_files}
    assert suffixes == LABEL_FILES.get(format, set())
    below = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}
    named = [row.name for row in (*manifest.pictures, *manifest.label_files)]
    assert len(named) == len(set(named)) and set(named) <= below
    assert {Path(name).suffix for name in below - set(named)} <= {".txt"}  # lists of names
    sets = read_sets(tmp_path)[0]
    assert verify(manifest, tmp_path, names_of(sets, tmp_path)) == {"changed": [], "missing": [], "added": []}
