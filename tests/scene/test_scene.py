from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tracesight.scene
from tracesight.errors import UserError
from tracesight.scene import (
    Keypoint,
    Mask,
    Measurement,
    Picture,
    Scene,
    SceneCategory,
    SceneObject,
    Track,
    coco_images,
    coco_results,
    write_categories_csv,
    write_csv,
)

SCHEMA = Path(tracesight.scene.__file__).with_name("scene.schema.json")
SHA = "0123456789abcdef" * 4


def make_scene(path: str | None = "tray/é\udc80.png") -> Scene:
    crop = np.ones((4, 6), np.bool_)
    crop[1, 2] = False
    mask = Mask.from_crop(crop, (3, 5), (20, 30))
    points = (Keypoint("left_end", 6, np.float32(4.5), 1), Keypoint("right_end", 9.5, 5, 0.25))
    nut = SceneObject(
        "nut", 7, np.float32(0.93), np.array([5.25, 3, 11, 7]), mask, Track(4), (Measurement("area", 41.5, "µm²"),),
        points, (("left_end", "right_end"),),
    )  # fmt: skip
    bolt = SceneObject("bolt", np.int64(0), 0.5, (0, 0, 3, 4))
    whole = (SceneCategory("tray", np.int64(2), np.float32(0.75)), SceneCategory("box", 1, 0.25))
    return Scene(Picture(SHA, 30, 20, path), (nut, bolt), "bundle", 0.05, categories=whole)


def test_save_and_load_give_the_same_scene(tmp_path):
    for scene in (make_scene(), make_scene(None), Scene(Picture(None, 3, 2))):
        scene.save(tmp_path / "scene.json")
        assert Scene.load(tmp_path / "scene.json") == scene
        assert Scene.from_json(scene.to_json()) == scene
    assert [path.name for path in tmp_path.iterdir()] == ["scene.json"]


def test_saved_file_has_one_object_a_line_and_exact_numbers(tmp_path):
    make_scene().save(tmp_path / "scene.json")
    lines = (tmp_path / "scene.json").read_text("utf-8").splitlines()
    assert len(lines) == 4
    assert json.loads(lines[1].rstrip(","))["score"] == float(np.float32(0.93))


def test_what_save_writes_follows_the_schema(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert schema["$id"] == "urn:tracesight:scene:3"
    for scene in (make_scene(), make_scene(None), Scene(Picture(None, 3, 2))):
        scene.save(tmp_path / "scene.json")
        validator.validate(json.loads((tmp_path / "scene.json").read_text("utf-8")))


def test_published_schema_is_the_packaged_one():
    published = Path(__file__).parents[2] / "docs" / "schema"
    assert (published / "scene-3.json").read_bytes() == SCHEMA.read_bytes()
    assert json.loads((published / "scene-2.json").read_text("utf-8"))["$id"] == "urn:tracesight:scene:2"
    assert json.loads((published / "scene-1.json").read_text("utf-8"))["$id"] == "urn:tracesight:scene:1"


# As version 1 wrote it, with its digest then.
FIRST = """{"schema": "1", "picture": {"sha256": null, "width": 30, "height": 20, "path": "a.png"}, "bundle": "b", \
"threshold": 0.5, "objects": [
 {"category": "nut", "category_id": 7, "score": 0.5, "box": [5.0, 3.0, 11.0, 7.0], "mask": null, "track": null, \
"measurements": []}
]}
"""
FIRST_DIGEST = "2ec0681b8eab909dd9116b70b6a09ecc9190dd0b7de0b8993584e6b58de7b815"


def test_version_1_is_read_kept_and_written_as_it_was(tmp_path):
    path = tmp_path / "scene.json"
    path.write_text(FIRST)
    scene = Scene.load(path)
    assert (scene.schema, scene.categories, scene.objects[0].category_id) == ("1", (), 7)
    assert scene.digest() == FIRST_DIGEST
    scene.save(path)
    assert path.read_text() == FIRST
    with pytest.raises(ValueError, match="version 1 has no categories"):
        replace(scene, categories=make_scene().categories)
    path.write_text(FIRST.replace('"objects"', '"categories": [], "objects"'))
    with pytest.raises(UserError, match="key 'categories'"):
        Scene.load(path)


# As version 2 wrote it, with its digest then.
SECOND = """{"schema": "2", "picture": {"sha256": null, "width": 30, "height": 20, "path": "a.png"}, "bundle": "b", \
"threshold": 0.5, "categories": [{"category": "tray", "category_id": 2, "score": 0.75}], "objects": [
 {"category": "nut", "category_id": 7, "score": 0.5, "box": [5.0, 3.0, 11.0, 7.0], "mask": null, "track": null, \
"measurements": []}
]}
"""
SECOND_DIGEST = "f324ab1e0901a07a0e2710fee823aa0e4a562bc9fc0a9c91223be105380f257f"


def test_version_2_is_read_kept_and_written_as_it_was(tmp_path):
    path = tmp_path / "scene.json"
    path.write_text(SECOND)
    scene = Scene.load(path)
    assert (scene.schema, scene.categories[0].category, scene.objects[0].keypoints) == ("2", "tray", ())
    assert scene.digest() == SECOND_DIGEST
    scene.save(path)
    assert path.read_text() == SECOND
    with pytest.raises(ValueError, match="version 2 has no keypoints"):
        replace(scene, objects=make_scene().objects)
    path.write_text(SECOND.replace('"mask"', '"keypoints": [], "mask"'))
    with pytest.raises(UserError, match="key 'keypoints'"):
        Scene.load(path)


BROKEN = [
    (lambda v: v.pop("schema"), 'it has no "schema"'),
    (lambda v: v.update(schema="4"), "version '4' is not one"),
    (lambda v: v.update(categories=3), "categories must be a list"),
    (lambda v: v["categories"][1].update(score=-0.1), r"categories\[1\]: score must lie between 0 and 1"),
    (lambda v: v["categories"][0].update(box=[]), r"categories\[0\]: category has a key 'box'"),
    (lambda v: v.pop("objects"), "scene has no 'objects'"),
    (lambda v: v.update(objects={}), "objects must be a list"),
    (lambda v: v.update(colour=1), "has a key 'colour'"),
    (lambda v: v.update(threshold="high"), "threshold must be a finite number"),
    (lambda v: v["picture"].update(sha256="ABC"), "picture: sha256 must be 64"),
    (lambda v: v["picture"].update(width=0), "picture: width must be at least 1"),
    (lambda v: v["picture"].update(width=29), r"objects\[0\]: mask of size \(20, 30\)"),
    (lambda v: v["objects"].append(3), r"objects\[2\]: object must be a JSON object"),
    (lambda v: v["objects"][1].pop("score"), r"objects\[1\]: object has no 'score'"),
    (lambda v: v["objects"][1].update(score=1.5), r"objects\[1\]: score must lie between 0 and 1"),
    (lambda v: v["objects"][1].update(score=True), r"objects\[1\]: score must be a finite number"),
    (lambda v: v["objects"][1].update(category_id=1.0), r"objects\[1\]: category_id must be a whole number"),
    (lambda v: v["objects"][1].update(category=""), r"objects\[1\]: category must be a text"),
    (lambda v: v["objects"][1].update(box=[1, 2, 3]), r"objects\[1\]: box must be four numbers"),
    (lambda v: v["objects"][1].update(box=[4, 2, 3, 5]), r"objects\[1\]: box must be \(x1, y1, x2, y2\)"),
    (lambda v: v["objects"][0]["mask"].update(counts="6"), r"objects\[0\]: mask: mask counts cover 6 pixels"),
    (lambda v: v["objects"][0]["track"].update(id="a"), r"objects\[0\]: track id must be a whole number"),
    (lambda v: v["objects"][0]["keypoints"][1].update(score=2), r"objects\[0\]: score must lie between 0 and 1"),
    (lambda v: v["objects"][0]["keypoints"][1].pop("x"), r"objects\[0\]: keypoint has no 'x'"),
    (lambda v: v["objects"][0].update(skeleton=[["a", "b", "c"]]), r"objects\[0\]: skeleton must be pairs of names"),
    (lambda v: v["objects"][0]["measurements"][0].pop("unit"), r"objects\[0\]: measurement has no 'unit'"),
]


@pytest.mark.parametrize(("spoil", "message"), BROKEN)
def test_bad_scene_is_named_in_one_line(tmp_path, spoil, message):
    value = make_scene().to_json()
    spoil(value)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=message) as caught:
        Scene.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    if "mask" not in message and "box must be \\(" not in message and "whole number" not in message:
        jsonschema = pytest.importorskip("jsonschema")
        assert not jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).is_valid(value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00", b'{"schema": NaN}', b"[" * 100_000, b'{"schema": 1}']
)
def test_file_that_is_no_scene_is_named(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.json: ") as caught:
        Scene.load(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file"):
        Scene.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        Scene.load(tmp_path)


def test_digest_leaves_out_where_the_picture_lay_and_nothing_else():
    scene = make_scene()
    assert scene.digest() == make_scene("elsewhere.png").digest()
    changed = [
        replace(scene, threshold=0.1),
        replace(scene, bundle="other"),
        replace(scene, objects=scene.objects[::-1]),
        replace(scene, categories=scene.categories[:1]),
        replace(scene, objects=(replace(scene.objects[0], score=0.94), scene.objects[1])),
        replace(scene, objects=(replace(scene.objects[0], keypoints=scene.objects[0].keypoints[:1]), scene.objects[1])),
        replace(scene, picture=replace(scene.picture, sha256="f" * 64)),
    ]
    assert len({item.digest() for item in (scene, *changed)}) == len(changed) + 1


def test_coco_results():
    scene = make_scene()
    first, second = scene.to_coco(image_id=12)
    assert (first["image_id"], first["category_id"], first["bbox"]) == (12, 7, [5.25, 3.0, 5.75, 4.0])
    assert Mask.from_coco(first["segmentation"]) == scene.objects[0].mask
    assert first["keypoints"] == [6.0, 4.5, 1.0, 9.5, 5.0, 0.25]
    assert second == {"image_id": 12, "category_id": 0, "bbox": [0.0, 0.0, 3.0, 4.0], "score": 0.5}
    json.dumps([first, second])
    assert [row["image_id"] for row in coco_results([scene, scene])] == [0, 0, 1, 1]
    assert [row["image_id"] for row in coco_results(iter([scene, scene]), [5, 3])] == [5, 5, 3, 3]
    assert coco_images([scene], [5]) == [{"id": 5, "file_name": scene.picture.path, "width": 30, "height": 20}]
    with pytest.raises(ValueError, match="longer"):
        coco_results([scene, scene], [5])


def test_csv_has_one_row_an_object(tmp_path):
    write_csv(iter([make_scene("a,b.png"), Scene(Picture(None, 3, 2))]), tmp_path / "objects.csv")
    with (tmp_path / "objects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["category"] for row in rows] == ["nut", "bolt"]
    assert rows[0] | {"picture": "a,b.png", "object": "0", "area": "23", "track": "4", "area [µm²]": "41.5"} == rows[0]
    assert (rows[0]["left_end x [px]"], rows[0]["right_end y [px]"], rows[1]["left_end x [px]"]) == ("6.0", "5.0", "")
    assert (float(rows[0]["x1"]), rows[1]["area"], rows[1]["area [µm²]"]) == (5.25, "", "")


def test_categories_csv_has_one_row_a_category(tmp_path):
    write_categories_csv([make_scene("a.png"), Scene(Picture(None, 3, 2))], tmp_path / "categories.csv")
    with (tmp_path / "categories.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["rank"], row["category"], row["score"]) for row in rows] == [
        ("a.png", "1", "tray", "0.75"), ("a.png", "2", "box", "0.25")
    ]  # fmt: skip


def test_categories_are_drawn_below_the_picture():
    scene = replace(make_scene(None), objects=())
    drawn = scene.draw(Image.new("RGB", (30, 20), (10, 200, 10)))
    assert drawn.width % 30 == 0 and drawn.height > drawn.width * 20 // 30
    assert drawn.getpixel((5, 5)) == (10, 200, 10)
    fewer = scene.draw(Image.new("RGB", (30, 20)), threshold=0.5)
    assert fewer.height < drawn.height


def test_scene_opens_its_own_picture(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: 20 × 30 in the file are 30 × 20 to look at
    Image.new("RGB", (20, 30), (90, 90, 90)).save(path, exif=exif)
    picture = Picture(hashlib.sha256(path.read_bytes()).hexdigest(), 30, 20, str(path))
    scene = replace(make_scene(), picture=picture)
    assert scene.draw().width % 30 == 0
    assert scene.draw(Image.new("RGB", (30, 20))).mode == "RGB"
    with pytest.raises(ValueError, match="30×20 pixels, this one has 20×30"):
        scene.draw(Image.new("RGB", (20, 30)))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="not the picture"):
        scene.draw()
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        scene.draw()
    with pytest.raises(UserError, match=r"scene\.draw\(picture\)"):
        make_scene(None).draw()
