from __future__ import annotations

import getpass
import json
import socket

import pytest

from tracesight.lineage.record import pictures_of_category, run_record, split_record


def test_the_record_names_versions_data_and_seed_but_no_host():
    record = run_record(
        recipe="detect",
        config={"seed": 7, "lr": 0.1, "workers": 3, "device": "cuda"},
        data={"train": split_record("ab" * 32, 10, 40)},
        init=None,
        steps=5,
        seconds=1.26,
        notes=("a note",),
    )
    text = json.dumps(record)
    assert record["seed"] == 7 and record["data"]["train"] == {"digest": "ab" * 32, "pictures": 10, "annotations": 40}
    assert {"python", "torch", "numpy", "tracesight"} <= record["versions"].keys()
    assert "workers" not in record["config"] and "device" not in record["config"]
    assert socket.gethostname() not in text and f"/{getpass.getuser()}" not in text


def test_pictures_of_each_category_survive_json():
    assert split_record("ab" * 32, 1, 2, roots={"pictures": "cd" * 32})["roots"] == {"pictures": "cd" * 32}
    row = split_record("ab" * 32, 10, 40, {11: 3, -2: 0, 7: 10})
    assert list(row["pictures_of_category"].items()) == [("-2", 0), ("7", 10), ("11", 3)]
    record = {"data": {"train": row, "val": split_record("cd" * 32, 2, 4, {7: 2})}}
    assert json.loads(json.dumps(record)) == record
    assert pictures_of_category(json.loads(json.dumps(record))) == {-2: 0, 7: 10, 11: 3}
    assert pictures_of_category(record, "val") == {7: 2}


@pytest.mark.parametrize(
    "record", [{}, {"weights": {}}, {"data": {"val": {}}}, {"data": {"train": split_record("ab" * 32, 10, 40)}}]
)
def test_records_that_do_not_say_it_are_read(record):
    assert pictures_of_category(record) is None
