from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tracesight.scene import Mask, SceneObject, category_colour, draw_objects, side_by_side
from tracesight.scene.draw import to_rgb
from tracesight.scene.fonts import font_for

GREY = (120, 120, 120)


def disc(x: int, y: int, radius: int, size: tuple[int, int], category_id: int = 1, score: float = 0.9) -> SceneObject:
    yy, xx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    mask = Mask.from_crop(yy**2 + xx**2 <= radius**2, (y - radius, x - radius), size)
    return SceneObject(f"kind {category_id}", category_id, score, mask.box, mask)


def changed(drawn: Image.Image) -> np.ndarray:
    return (np.asarray(drawn) != GREY).any(axis=2)


def has_colour(drawn: Image.Image, category_id: int) -> bool:
    return bool((np.asarray(drawn) == category_colour(category_id)).all(axis=2).any())


def test_picture_is_left_alone_and_size_kept_on_request():
    picture = Image.new("RGB", (200, 100), GREY)
    drawn = draw_objects(picture, [disc(60, 50, 20, (100, 200))], scale=1, legend=False)
    assert drawn.size == (200, 100) and drawn.mode == "RGB"
    assert not changed(picture).any()
    pixels = changed(drawn)
    assert pixels[50, 60] and not pixels[:, 120:].any()
    assert has_colour(drawn, 1)


def test_threshold_leaves_out_what_is_below():
    picture = Image.new("RGB", (200, 100), GREY)
    objects = [disc(40, 50, 20, (100, 200), 1, 0.4), disc(140, 50, 20, (100, 200), 2, 0.5)]
    drawn = draw_objects(picture, objects, threshold=0.5, scale=1, legend=False)
    assert has_colour(drawn, 2) and not has_colour(drawn, 1)
    assert not changed(drawn)[:, :80].any()


def test_small_pictures_are_enlarged_and_large_ones_are_not():
    for side, expected in ((144, 720), (640, 640), (900, 900), (5, 40)):
        drawn = draw_objects(Image.new("RGB", (side, side), GREY), [])
        assert drawn.width == expected and drawn.height > expected  # the legend comes below


def test_labels_go_where_no_object_is():
    size = (400, 400)
    lone = draw_objects(Image.new("RGB", (400, 400), GREY), [disc(200, 200, 60, size)], scale=1, legend=False)
    outside = changed(lone)
    outside[138:263, 138:263] = False  # the disc and its box
    assert outside.sum() > 300  # its label

    crowd = [disc(x, y, 7, size, 1 + (x // 16 + y // 16) % 3) for x in range(8, 400, 16) for y in range(8, 400, 16)]
    drawn = draw_objects(Image.new("RGB", (400, 400), GREY), crowd, scale=1, legend=False)
    covered = np.zeros(size, np.bool_)
    for item in crowd:
        covered |= item.mask.to_array() if item.mask else False
    np.testing.assert_array_equal(changed(drawn), covered)  # masks and contours, no label


def test_label_that_would_hide_a_neighbour_is_left_out():
    size = (300, 300)
    wall = Mask.from_array(np.ones(size))
    hole = disc(150, 150, 6, size, 2)
    objects = [SceneObject("wall", 1, 0.9, wall.box, wall), *(disc(x, 40, 6, size, 2) for x in (40, 90)), hole]
    drawn = np.asarray(draw_objects(Image.new("RGB", (300, 300), GREY), objects, scale=1, legend=False))
    dots = (drawn == category_colour(2)).all(axis=2)
    for x, y in ((40, 40), (90, 40), (150, 150)):
        assert dots[y - 6 : y + 7, x - 6 : x + 7].any()  # no label lies over a small object's contour


def test_objects_may_have_no_mask_an_empty_one_or_hang_over_the_edge():
    picture = Image.new("RGB", (90, 60), GREY)
    empty = Mask.from_array(np.zeros((60, 90)))
    objects = [
        SceneObject("box", 1, 0.5, (10, 10, 40, 40)),
        SceneObject("no area", 2, 0.5, (20, 20, 20, 20)),
        SceneObject("outside", 3, 0.5, (-30, -20, 400, 300)),
        SceneObject("far", -5, 0.5, (300, 300, 310, 310)),
        SceneObject("empty", 10**9, 0.5, (50, 10, 60, 20), empty),
        disc(0, 0, 9, (60, 90)),
    ]
    for scale in (None, 1, 3):
        assert draw_objects(picture, objects, scale=scale).width % 90 == 0
    assert draw_objects(Image.new("RGB", (1, 1)), [SceneObject("dot", 1, 1, (0, 0, 1, 1))]).size[0] == 8


def test_legend_names_every_category_and_wraps():
    picture = Image.new("RGB", (640, 640), GREY)
    one = draw_objects(picture, [SceneObject("nut", 1, 1, (5, 5, 90, 90))])
    many = draw_objects(picture, [SceneObject(f"category {i}", i, 1, (5, 5, 90, 90)) for i in range(1, 25)])
    assert many.height > one.height > 640
    strip = many.crop((0, 640, 640, many.height))
    assert all(has_colour(strip, i) for i in range(1, 25))


def test_colours_are_stable_and_differ():
    assert len({category_colour(i) for i in range(1, 25)}) == 24
    assert category_colour(1) == category_colour(25) == (64, 176, 255)
    assert all(0 <= value <= 255 for i in (-3, 0, 91, 10**9) for value in category_colour(i))


def test_side_by_side_keeps_scale_and_fills_up():
    sheet = side_by_side(Image.new("RGB", (100, 80), GREY), Image.new("L", (100, 60), 200), ("truth", "Ergebnis ü"))
    assert sheet.width > 200 and sheet.height > 80
    pixels = np.asarray(sheet)
    assert (pixels == GREY).all(axis=2).sum() >= 100 * 80
    assert (pixels == 200).all(axis=2).sum() >= 100 * 60
    unequal = side_by_side(Image.new("RGB", (100, 80), GREY), Image.new("RGB", (400, 160), (9, 9, 9)), ("a", "b"))
    assert unequal.height == sheet.height and unequal.width > 300


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "F", "LA"])
def test_every_kind_of_picture_becomes_rgb(mode):
    picture = Image.new("I;16", (3, 2), 51400) if mode == "I;16" else Image.new("L", (3, 2), 200).convert(mode)
    red, green, blue = to_rgb(picture).getpixel((0, 0))  # pyright: ignore[reportGeneralTypeIssues]
    assert red == green == blue and red in (200, 255)
    assert mode in ("1",) or red == 200


def test_letters_that_a_font_lacks_come_from_another():
    pytest.importorskip("matplotlib")
    assert font_for("nut 0.93", 12) is font_for("bolt 0.93", 12)
    assert font_for("Öl µ", 12).getname() != font_for("nut", 12).getname()  # pyright: ignore[reportAttributeAccessIssue]
