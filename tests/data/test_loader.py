"""The same batches for any number of workers and from any step on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sets import make_set

from tracesight.data.batch import Loaded
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_splits
from tracesight.data.loader import training_batches, validation_batches
from tracesight.data.record import Annotation, Record
from tracesight.data.sample import Sample
from tracesight.data.sampling import epoch_length, weighted_order
from tracesight.data.transforms import Transform, eval_transform, train_transform
from tracesight.errors import PartialFailure, UserError
from tracesight.scene.mask import Mask

SIZES = [(40, 50), (64, 64), (33, 70), (90, 41), (55, 55), (48, 61), (70, 70)]
AUGMENT = partial(
    train_transform, image_size=48, scales=(0.6, 1.5), crop_size=40, vertical_flip=True, transpose=True, colour=0.3
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_set(tmp_path_factory.mktemp("set"), SIZES, objects=5, categories=((4, "cell"), (9, "dust")))


def tensors(loaded: Loaded) -> list[torch.Tensor]:
    assert loaded.targets is not None
    return [*loaded.batch[:3], *loaded.targets]


def same(first: list[Loaded], second: list[Loaded]) -> bool:
    return len(first) == len(second) and all(
        a.indices == b.indices
        and a.original_sizes == b.original_sizes
        and all(torch.equal(x, y) and x.stride() == y.stride() for x, y in zip(tensors(a), tensors(b)))
        for a, b in zip(first, second)
    )


def test_workers_and_restarts_change_no_bit(dataset: Dataset) -> None:
    batches = partial(training_batches, dataset, batch_size=3, seed=5, transform=AUGMENT)
    alone = list(batches(steps=9))
    state = torch.get_rng_state()
    assert same(alone, list(batches(steps=9, workers=2)))
    assert torch.equal(state, torch.get_rng_state())  # loading draws nothing from torch's own generator
    assert same(alone[4:], list(batches(start_step=4, steps=5)))
    assert same(alone[7:], list(batches(start_step=7, steps=2, workers=2)))
    assert not same(alone, list(training_batches(dataset, batch_size=3, seed=6, steps=9, transform=AUGMENT)))


def pictures_of(loaded: Loaded) -> list[tuple[object, ...]]:
    """What each picture of a batch holds, without padding, as plain values."""
    batch, targets = loaded.batch, loaded.targets
    assert targets is not None
    held = []
    for i, index in enumerate(loaded.indices):
        h, w = batch.sizes[i].tolist()
        n = int((targets.labels[i] > 0).sum())
        crops = []
        for start, (rows, columns) in zip(targets.mask_offsets[i, :n].tolist(), targets.mask_sizes[i, :n].tolist()):
            crops.append(targets.mask_pixels[start : start + rows * columns].tolist())
        rows = [tensor[i, :n].tolist() for tensor in (*targets[:5], targets.mask_sizes)]
        pixels = batch.images[i, :, :h, :w].numpy().tobytes()
        held.append((index, loaded.original_sizes[i], batch.keys[i].tolist(), h, w, pixels, rows, crops))
    return held


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_parts_of_all_ranks_are_the_batch_of_one_process(dataset: Dataset, ranks: int, weighted: bool) -> None:
    weights = np.array([1, 2.5, 1, 0, 1, 4, 1]) if weighted else None
    batches = partial(training_batches, dataset, batch_size=6, seed=5, steps=4, transform=AUGMENT, weights=weights)
    alone = [pictures_of(loaded) for loaded in batches()]
    parts = [list(batches(rank=rank, ranks=ranks, workers=rank)) for rank in range(ranks)]
    assert all(len(loaded.indices) == 6 // ranks for part in parts for loaded in part)
    assert [[picture for loaded in step for picture in pictures_of(loaded)] for step in zip(*parts)] == alone


def test_ranks_that_cannot_share_a_batch_are_told_what_they_can(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"batch_size=10 .* 4 processes: use batch_size=12$"):
        training_batches(dataset, batch_size=10, seed=0, steps=1, transform=AUGMENT, ranks=4)


def test_weights_say_how_often_a_picture_is_shown_per_epoch(dataset: Dataset) -> None:
    weights = np.array([1, 2.5, 1, 0, 1, 4, 1])
    length = epoch_length(len(dataset), weights)
    batches = partial(training_batches, dataset, batch_size=3, seed=2, transform=AUGMENT, weights=weights)
    shown = [index for loaded in batches(steps=4 * length // 3) for index in loaded.indices]
    epochs = [shown[i : i + length] for i in range(0, len(shown) - length + 1, length)]
    assert len(epochs) >= 3
    for epoch, indices in enumerate(epochs):
        assert indices == weighted_order(2, epoch, weights).tolist()
        assert np.all(np.abs(np.bincount(indices, minlength=7) - weights * length / weights.sum()) < 1)
    assert same(list(batches(steps=9))[5:], list(batches(start_step=5, steps=4, workers=2)))
    with pytest.raises(ValueError, match="7 pictures"):
        training_batches(dataset, batch_size=3, seed=2, steps=1, transform=AUGMENT, weights=weights[1:])


def deadly(sample: Sample, rng: np.random.Generator, transform: Transform) -> Sample:
    if sample.size == (90, 41):  # picture 3
        os.kill(os.getpid(), signal.SIGKILL)
    return transform(sample, rng)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_workers_change_no_bit_and_are_told_of(dataset: Dataset) -> None:
    batches, said = partial(training_batches, dataset, batch_size=3, seed=5, transform=AUGMENT), []
    alone = list(batches(steps=12))
    source = batches(steps=9, start_step=3, workers=2, say=said.append)
    loaded = [next(source) for _ in range(2)]
    victim = multiprocessing.active_children()[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert same(alone[3:], loaded + list(source))
    assert len(said) == 1
    assert "SIGKILL" in said[0] and said[0].startswith(("step 5: ", "step 6: "))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_picture_that_kills_workers_is_named(dataset: Dataset) -> None:
    transform = partial(deadly, transform=AUGMENT)
    with (
        pytest.warns(RuntimeWarning, match=r"^validation batch 1: a worker was killed"),
        pytest.raises(PartialFailure, match=r"^validation batch 1: .*picture2\.png, \S*picture3\.png; .*workers=0"),
    ):
        list(validation_batches(dataset, batch_size=2, transform=transform, workers=2))


def test_leaving_early_leaves_no_worker_behind(dataset: Dataset) -> None:
    source = training_batches(dataset, batch_size=3, seed=5, steps=99, transform=AUGMENT, workers=2)
    next(source)
    assert len(multiprocessing.active_children()) == 2
    source.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("method", [name for name in multiprocessing.get_all_start_methods() if name != "fork"])
def test_the_start_method_changes_no_bit(dataset: Dataset, method: str) -> None:
    before = multiprocessing.get_start_method()
    batches = partial(training_batches, dataset, batch_size=3, seed=5, steps=5, transform=AUGMENT)
    alone = list(batches())
    multiprocessing.set_start_method(method, force=True)
    try:
        assert same(alone, list(batches(workers=2)))
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_every_epoch_shows_every_picture_once_in_another_order(dataset: Dataset) -> None:
    batches = list(training_batches(dataset, batch_size=3, seed=0, steps=14, transform=AUGMENT))
    shown = [index for loaded in batches for index in loaded.indices]
    epochs = [shown[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    keys = torch.cat([loaded.batch.keys for loaded in batches])
    assert keys.tolist() == [[0, draw] for draw in range(42)]


def test_a_batch_may_be_larger_than_the_dataset(dataset: Dataset) -> None:
    loaded = next(training_batches(dataset.subset([0, 3]), batch_size=5, seed=0, steps=1, transform=AUGMENT))
    assert Counter(loaded.indices) in (Counter({0: 3, 1: 2}), Counter({0: 2, 1: 3}))


def test_validation_shows_every_picture_once_in_order(dataset: Dataset) -> None:
    transform = partial(eval_transform, image_size=64)
    batches = list(validation_batches(dataset, batch_size=3, transform=transform))
    assert [loaded.indices for loaded in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches[0].original_sizes == SIZES[:3]
    assert same(batches, list(validation_batches(dataset, batch_size=3, transform=transform, workers=2)))
    targets = batches[0].targets
    assert targets is not None
    assert set(targets.labels[targets.valid].tolist()) == {1, 2}
    boxes_only = next(validation_batches(dataset, batch_size=3, transform=transform, with_masks=False))
    assert boxes_only.targets is not None
    assert torch.equal(boxes_only.targets.boxes, targets.boxes)
    assert boxes_only.targets.mask_pixels.numel() == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_fails_is_one_line_from_any_process(tmp_path: Path, workers: int) -> None:
    dataset = make_set(tmp_path, SIZES[:2])
    path = tmp_path / "images/picture1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"^\S*picture1\.png: cannot be decoded") as caught:
        list(training_batches(dataset, batch_size=2, seed=0, steps=1, transform=AUGMENT, workers=workers))
    assert "\n" not in str(caught.value)


def test_a_mask_that_does_not_fit_names_its_picture(tmp_path: Path) -> None:
    record = make_set(tmp_path, SIZES[:1])[0]
    wrong = Annotation(1, 1, (0, 0, 9, 9), Mask.from_array(np.ones((9, 9), bool)))
    dataset = Dataset.of([Record(1, record.path, record.width, record.height, (wrong,))], {1: "cell"})
    with pytest.raises(UserError, match=r"picture0\.png: mask of size"):
        list(validation_batches(dataset, batch_size=1, transform=partial(eval_transform, image_size=32)))


def test_the_room_is_imported_without_torch() -> None:
    modules = ("batch", "checks", "formats", "loader", "pictures", "record", "sample", "split", "transforms", "workers")
    code = "import sys\n" + "".join(f"import tracesight.data.{module}\n" for module in modules)
    code += "print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == "False"


WORKER_MEMORY = """
import json, os, sys
from pathlib import Path
from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.data.sample import Sample

def private_kib():
    fields = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines())
    return sum(int(f[1]) for f in fields if f[0] in ("Private_Clean:", "Private_Dirty:"))

objects = tuple(Annotation(i, 1, (0.0, 0.0, 5.0, 5.0), [[float(j) for j in range(40)]]) for i in range(50))
dataset = Dataset.of((Record(i, Path("x.png"), 9, 9, objects) for i in range(4000)), {1: "cell"})
read, write = os.pipe()
if os.fork() == 0:
    for i in range(200):  # what a worker needs anyway
        dataset[i]
    before = private_kib()
    for i in range(len(dataset)):
        dataset[i]
    os.write(write, json.dumps({"buffer": dataset.buffer.nbytes // 1024, "grown": private_kib() - before}).encode())
    os._exit(0)
os.wait()
print(os.read(read, 1000).decode())
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_reading_every_record_in_a_fork_copies_no_page_of_the_labels() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    answer = subprocess.run(
        [sys.executable, "-c", WORKER_MEMORY], capture_output=True, text=True, check=True, env=environment
    )
    memory = json.loads(answer.stdout)
    assert memory["buffer"] > 20_000
    assert memory["grown"] < memory["buffer"] / 10


@pytest.mark.realdata
def test_real_pictures(tmp_path: Path) -> None:
    root = os.environ.get("TRACESIGHT_DATA")
    if not root or not Path(root, "nuclei").is_dir():
        pytest.skip("TRACESIGHT_DATA names no folder that holds nuclei/")
    train, val, notes = read_splits(Path(root) / "nuclei", 0)
    assert val is not None
    assert (len(train), len(val), notes) == (397, 98, [])
    assert sum(len(record.annotations) for record in train) == 17_556
    transform = partial(train_transform, image_size=None, crop_size=256, vertical_flip=True, transpose=True)
    for loaded in training_batches(train, batch_size=4, seed=0, steps=20, transform=transform):
        assert loaded.targets is not None
        assert loaded.batch.images.shape == (4, 3, 256, 256)
        for i, j in loaded.targets.valid.nonzero().tolist():
            x1, y1, x2, y2 = loaded.targets.mask_boxes[i, j].tolist()
            h, w = loaded.targets.mask_sizes[i, j].tolist()
            assert (x2 - x1, y2 - y1) == (w, h)
            start = int(loaded.targets.mask_offsets[i, j])
            crop = loaded.targets.mask_pixels[start : start + h * w].reshape(h, w).numpy()
            top, left = max(0, round(-y1)), max(0, round(-x1))
            seen = crop[top : round(min(256, y2) - y1), left : round(min(256, x2) - x1)]
            rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            box = [x1 + left + columns[0], y1 + top + rows[0], x1 + left + columns[-1] + 1, y1 + top + rows[-1] + 1]
            assert loaded.targets.boxes[i, j].tolist() == box
