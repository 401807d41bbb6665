from __future__ import annotations

from pathlib import Path

import pytest

from tracesight.data.dataset import Dataset
from tracesight.data.image_labels import ImageLabels, check_image_labels, image_labels
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError

CATEGORIES = {3: "ant", 7: "bee"}


def dataset(*labels: tuple[int, ...], objects: tuple[tuple[int, ...], ...] = ()) -> Dataset:
    rows = objects or ((),) * len(labels)
    records = []
    for number, (whole, inside) in enumerate(zip(labels or ((),) * len(rows), rows)):
        annotations = tuple(Annotation(i, c, (0, 0, 2, 2), crowd=c < 0) for i, c in enumerate(inside))
        records.append(Record(number, Path(f"{number}.png"), 4, 4, annotations, labels=whole))
    return Dataset.of(records, CATEGORIES, "set")


def test_one_label_each_is_multi_class():
    data = dataset((3,), (7,), (3,))
    assert image_labels(data) == (ImageLabels(objects=False, several=False), [])
    assert [ImageLabels(False, False).of(record) for record in data] == [(3,), (7,), (3,)]
    assert image_labels(data, several=True)[0].several


def test_none_or_several_make_it_multi_label_and_it_is_said():
    labels, notes = image_labels(dataset((3,), (7, 3), ()))
    assert labels == ImageLabels(objects=False, several=True)
    assert notes == [
        "multi-label, since 2 pictures show none or several categories; "
        "multi_label=false wants exactly one for each picture"
    ]
    with pytest.raises(UserError, match=r"1\.png: shows ant, bee, and 1 more pictures have none or several; give"):
        image_labels(dataset((3,), (7, 3), ()), several=False)


def test_categories_of_objects_count_where_there_are_no_others():
    data = dataset(objects=((7, 3, 3), (), (7,)))
    labels, notes = image_labels(data)
    assert labels == ImageLabels(objects=True, several=True)
    assert "labels are those of objects" in notes[0]
    assert [labels.of(record) for record in data] == [(3, 7), (), (7,)]
    assert image_labels(dataset(objects=((3, 3), (7,))), several=False)[0] == ImageLabels(True, False)
    with_both = dataset((3,), (7,), objects=((7,), (3, 7)))
    assert [image_labels(with_both)[0].of(record) for record in with_both] == [(3,), (7,)]


def test_a_set_that_is_read_like_another_must_fit():
    with pytest.raises(UserError, match=r"0\.png: shows no category; give each exactly one"):
        check_image_labels(dataset(()), ImageLabels(objects=False, several=False))
    check_image_labels(dataset(()), ImageLabels(objects=False, several=True))
    with pytest.raises(UserError, match="set: no picture shows any category"):
        image_labels(dataset((), ()))
