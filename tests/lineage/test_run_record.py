from __future__ import annotations

import getpass
import json
import socket

from tracesight.lineage.record import run_record, split_record


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
