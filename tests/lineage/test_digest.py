from __future__ import annotations

import pytest

from tracesight.errors import UserError
from tracesight.lineage import file_digest, rows_digest


def test_digest_of_a_file_is_sha256_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.png: cannot be read \(No such file or directory\)"):
        file_digest(tmp_path / "gone.png")


def test_rows_are_told_apart_by_content_order_and_borders():
    different = [
        ["ab", "c"],
        ["a", "bc"],
        ["abc"],
        ["c", "ab"],
        [],
        [""],
        ["ab\n", "c"],
        ["ab", "\nc"],
        ["1:a,"],
        ["a"],
    ]
    assert len({rows_digest(rows) for rows in different}) == len(different)
    assert rows_digest(iter(["ab", "c"])) == rows_digest(["ab", "c"])
    # printf '2:ab,1:c,' | sha256sum
    assert rows_digest(["ab", "c"]) == "c574c25172ecac17c428975b6e876d2a98a72d84660fc96686f942390b360cd8"


def test_rows_may_hold_names_that_are_no_utf8():
    assert rows_digest(["\udc80"]) != rows_digest(["\udc81"])
