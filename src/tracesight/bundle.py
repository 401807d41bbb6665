"""The model as a folder: `model.safetensors` (weights), `config.yaml` (how to build it and what pictures become before
they reach it), `bundle.json` (categories, thresholds, figures, lineage, and the digests that make tampering show).

Nothing in a bundle is code, and nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from tracesight.data.points import Keypoints, points_from_json, points_to_json
from tracesight.errors import UserError
from tracesight.models.keypoint_head import keypoints_of
from tracesight.weights.pickles import is_pickle, refuse_pickles

FORMAT = "tracesight-bundle"
VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "bundle.json"
DEFAULT_THRESHOLD = 0.5
CATEGORIES = 5  # most categories of a picture as a whole that a scene has, unless told otherwise
UNUSED = "N/A"  # the name of a category that the network has and nobody uses


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model with all that is needed to use and to judge it. Make one with `Bundle.of`, read one with `load`.

    categories: name by original id; index i inside the network is the i-th id in ascending order (detectors: plus 1).
    preprocessing: "image_size" (short side, pixels), "max_size" (long side at most), "mean" and "std" (of each channel,
    in 0–1), "decoder"; of a classifier image_size is the side of a square from the middle of the picture, whose short
    side has become "resize". thresholds: "operating", the score, 0–1, from which an object or category counts; of a
    classifier "temperature", by which its scores are divided. metrics: as evaluation gave them. lineage: what the model
    was made from. max_objects: most objects, or categories, a picture. multi_label: a picture may show any number of
    categories. keypoints: the points of a category's objects by its id, where the network finds any.
    """

    model: nn.Module
    categories: dict[int, str]
    preprocessing: dict[str, Any]
    thresholds: dict[str, Any]
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    max_objects: int
    multi_label: bool = False
    keypoints: dict[int, Keypoints] = field(default_factory=dict)
    _cache: dict[Any, str] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        categories: Mapping[int, str],
        *,
        image_size: int = 800,
        max_size: int | None = None,
        thresholds: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
        max_objects: int | None = None,
        multi_label: bool = False,
        resize: int | None = None,
        keypoints: Mapping[int, Keypoints] | None = None,
    ) -> Bundle:
        """A bundle around a model that `tracesight.build` made.

        categories: exactly as many as the network has (background not counted); unused ones are named "N/A".
        image_size: short side in pixels; max_size: most of the long side, None for 5/3 of image_size.
        thresholds: None for {"operating": 0.5}. max_objects: None for the model's own. keypoints: by category id, those
        of categories that have points; dropped where the network finds none.
        Of a classifier image_size is the side of what it sees; resize: the short side that a picture gets before, None
        for 8/7 of image_size, or image_size where the network is made for small pictures; thresholds: None for
        {"operating": 0} (0.5 with `multi_label`) and a temperature of 1; max_objects: None for 5.
        Raises UserError: model without a spec, wrong number of categories, a size or threshold out of range.
        """
        spec = getattr(model, "spec", None)
        if not isinstance(spec, dict):
            raise UserError("a bundle needs a model with a spec: build it with tracesight.build")
        named = _checked_categories(categories, spec)
        if image_size < 1 or (max_size is not None and max_size < image_size):
            raise UserError(f"image_size={image_size}, max_size={max_size}: need 1 ≤ image_size ≤ max_size")
        classifies = _task(spec) in ("classify", "features")
        usual: dict[str, Any] = {"operating": DEFAULT_THRESHOLD}
        if classifies:
            usual = {"operating": DEFAULT_THRESHOLD if multi_label else 0.0, "temperature": 1.0}
        thresholds = usual | dict(thresholds or {})
        _check_threshold(thresholds["operating"])
        preprocessing = {
            "image_size": int(image_size),
            "max_size": int(image_size * 5 / 3) if max_size is None else int(max_size),
            "mean": _channels(model.pixel_mean),
            "std": _channels(model.pixel_std),
            "decoder": "pillow",
        }
        if classifies:
            preprocessing["resize"] = _resize(model, image_size) if resize is None else int(resize)
            if preprocessing["resize"] < image_size:
                raise UserError(f"resize={resize} is smaller than image_size={image_size}, the square cut from it")
        most = int(max_objects if max_objects is not None else _most_objects(model))
        if most < 1:
            raise UserError(f"max_objects={most}: need at least 1")
        said = dict(metrics or {}), dict(lineage or {})
        points = _checked_points(keypoints or {}, named, keypoints_of(model))
        return cls(model, named, preprocessing, thresholds, *said, most, multi_label, points)

    @property
    def spec(self) -> dict[str, Any]:
        """How `tracesight.build` made the model: "name", "num_classes", "conventions", "args"."""
        return self.model.spec  # type: ignore[return-value]

    @property
    def task(self) -> str:
        """ "detect", "segment", "classify", or "features" of an encoder, which names nothing."""
        return _task(self.spec)

    @property
    def in_channels(self) -> int:
        """Channels of the pictures that it takes: 3, RGB, unless it was built otherwise."""
        return _in_channels(self.spec)

    @property
    def threshold(self) -> float:
        """The operating threshold: the score, 0–1, from which an object counts unless the caller says otherwise."""
        return float(self.thresholds["operating"])

    @property
    def digest(self) -> str:
        """SHA-256 of all content, 64 hex digits; the same for a bundle in memory, saved and read again."""
        key = self._content_key()
        if key not in self._cache:
            self._cache.clear()
            self._cache[key] = self._files()[2]["digest"]
        return self._cache[key]

    def _content_key(self) -> Any:
        """Changes whenever content may have: hashing all weights for every picture would take longer than some."""
        tensors = [t for t in self.model.state_dict().values() if not t.is_inference()]
        return tuple((t.data_ptr(), t._version) for t in tensors), json.dumps(self._facts(), sort_keys=True)

    def predict(
        self,
        pictures: str | Path | Iterable[str | Path],
        threshold: float | None = None,
        max_objects: int | None = None,
    ) -> Any:
        """What the pictures hold, found on the device where the model is: objects, or of a classifier categories.

        pictures: the path of one picture gives a `Scene`; a folder (with all below it), a glob such as "a/*.jpg", a
        list or a generator of paths gives an iterator of scenes, in order.
        threshold: least score, 0–1; None for the operating threshold. max_objects: most objects, or categories.

        Raises UserError for one picture that cannot be read or a threshold out of range; PartialFailure at the end of
        an iterator when some pictures could not be read.
        """
        from tracesight import predict

        if isinstance(pictures, str | Path) and not predict.is_many(pictures):
            (scene,) = predict.readable(self, [pictures], threshold, max_objects)
            return scene
        paths = [p for p, _ in predict.find_pictures([pictures])] if isinstance(pictures, str | Path) else pictures
        return predict.readable(self, paths, threshold, max_objects)

    def save(self, folder: str | Path) -> Path:
        """Write the bundle; an earlier bundle at `folder` is replaced, and the folder is there whole or not at all.

        Raises UserError when something else is there, or the folder cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / CARD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: is there already and is no bundle; choose another folder")
        weights, config, card = self._files()
        making = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
        try:
            making.mkdir(parents=True)
            texts = {CONFIG: config, CARD: (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()}
            for name, content in {WEIGHTS: weights, **texts}.items():
                with (making / name).open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            _replace(making, folder)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return folder

    def _facts(self) -> dict[str, Any]:
        kind: dict[str, Any] = {"multi_label": self.multi_label} if self.task == "classify" else {}
        if self.keypoints:
            kind["keypoints"] = points_to_json(self.keypoints)
        return {
            "format": FORMAT,
            "version": VERSION,
            "task": self.task,
            "categories": [{"id": number, "name": name} for number, name in self.categories.items()],
            "thresholds": self.thresholds,
            "max_objects": self.max_objects,
            **kind,
            "metrics": self.metrics,
            "lineage": self.lineage,
        }

    def _files(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """Content of the weights and the config, and of the card that names their digests and its own."""
        from safetensors.torch import save

        # Channels-last weights are stored plainly; the counters of batch norm have no say in any result.
        state = {n: t.detach().cpu().contiguous() for n, t in self.model.state_dict().items() if _kept(n)}
        weights = save(state)
        config = {"model": json.loads(json.dumps(self.spec)), "preprocessing": self.preprocessing}
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()
        card = json.loads(json.dumps(self._facts(), allow_nan=False))
        card["files"] = {WEIGHTS: _sha256(weights), CONFIG: _sha256(text)}
        card["digest"] = _card_digest(card)
        return weights, text, card


def load(folder: str | Path) -> Bundle:
    """Read a saved bundle, its model on the CPU and in evaluation mode.

    Raises UserError, one line naming the folder: not there, no bundle, a pickle, damaged, changed since it was saved,
    or written by a newer version.
    """
    folder = Path(folder)
    _recover(folder)
    if folder.is_file():
        raise UserError(
            f"{folder}: a file, and a bundle is a folder; "
            + ("pickled checkpoints can run code and are refused: " if is_pickle(folder) else "")
            + "bring other people's weights in with `tracesight weights import`"
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder of a bundle, such as RUN/best")
    refuse_pickles(folder, WEIGHTS)
    for name in (CARD, CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            hint = "".join(f"; did you mean {folder / part}?" for part in ("best", "last") if (folder / part).is_dir())
            raise UserError(f"{folder}: no bundle, {name} is missing{hint[: hint.find('?') + 1]}")
    card = _read_card(folder)
    try:
        weights, config = (folder / WEIGHTS).read_bytes(), (folder / CONFIG).read_bytes()
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error})") from error
    for name, content in ((WEIGHTS, weights), (CONFIG, config)):
        if card.get("files", {}).get(name) != _sha256(content):
            raise UserError(f"{folder / name}: changed since the bundle was saved, or damaged; restore the bundle")
    if card.get("digest") != _card_digest(card):
        raise UserError(f"{folder / CARD}: changed since the bundle was saved, or damaged; restore the bundle")
    try:
        return _assemble(card, yaml.safe_load(config), weights)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except Exception as error:  # a builder that rejects arguments, weights that do not fit, keys that are missing
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{folder}: the bundle cannot be used ({type(error).__name__}: {reason})") from error


def _assemble(card: dict[str, Any], config: dict[str, Any], weights: bytes) -> Bundle:
    from safetensors.torch import load as read_tensors

    from tracesight.models.build import build

    spec = config["model"]
    model = build(spec["name"], spec["num_classes"], spec["conventions"], **spec["args"])
    model.load_state_dict(read_tensors(weights))
    model.eval()
    for key, name in (("mean", "pixel_mean"), ("std", "pixel_std")):
        numbers, channels = config["preprocessing"][key], _in_channels(spec)
        if len(numbers) != channels:
            raise UserError(f"{key} of {len(numbers)} channels for a network that takes {channels}")
        if isinstance(values := getattr(model, name, None), torch.Tensor):
            values.copy_(torch.tensor(numbers).view_as(values))
    categories = _checked_categories({row["id"]: row["name"] for row in card["categories"]}, spec)
    thresholds, preprocessing = card["thresholds"], config["preprocessing"]
    _check_threshold(thresholds["operating"])
    if preprocessing["decoder"] != "pillow":
        raise UserError(f"unknown decoder '{preprocessing['decoder']}'; a newer Tracesight may read it")
    if card["task"] in ("classify", "features"):  # bundles of before they could predict do not say
        thresholds = {"temperature": 1.0} | thresholds
        preprocessing = {"resize": _resize(model, preprocessing["image_size"])} | preprocessing
    bundle = Bundle(
        model, categories, preprocessing, thresholds, card["metrics"], card["lineage"], int(card["max_objects"]),
        bool(card.get("multi_label", False)),
        _checked_points(points_from_json(card.get("keypoints", ())), categories, keypoints_of(model)),
    )  # fmt: skip
    bundle._cache[bundle._content_key()] = card["digest"]
    return bundle


def _channels(values: Any) -> list[float]:
    """Mean or deviation of each channel, rounded to what float32 holds."""
    return [float(f"{number:.7g}") for number in values.flatten().tolist()]


def _most_objects(model: nn.Module) -> int:
    settings = getattr(getattr(model, "roi_heads", None), "settings", None)
    return CATEGORIES if settings is None else settings.max_objects


def _resize(model: nn.Module, image_size: int) -> int:
    """The usual short side before a classifier's cut: 256 for 224, and nothing is cut from small pictures."""
    return image_size if getattr(model, "small", False) else round(image_size * 8 / 7)


def _kept(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _card_digest(card: Mapping[str, Any]) -> str:
    """Digest of everything: the card without its own digest, which names those of the other two files."""
    content = {key: value for key, value in card.items() if key != "digest"}
    return _sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _in_channels(spec: Mapping[str, Any]) -> int:
    return int(spec["args"].get("in_channels", 3))


def _task(spec: Mapping[str, Any]) -> str:
    from tracesight.models.build import CATALOGUE

    return "features" if spec["num_classes"] == 0 else CATALOGUE[spec["name"]].task


def _checked_categories(categories: Mapping[int, str], spec: Mapping[str, Any]) -> dict[int, str]:
    """Categories in ascending id. Raises UserError unless there are as many as the network has."""
    for number, name in categories.items():
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(name, str) or not name:
            raise UserError(f"category {number!r}: {name!r}: ids are whole numbers and names are text")
    needed = int(spec["num_classes"]) - (_task(spec) not in ("classify", "features"))
    if len(categories) != needed:
        raise UserError(f"{len(categories)} categories for a network that has {needed} (background not counted)")
    return {number: categories[number] for number in sorted(categories)}


def _checked_points(points: Mapping[int, Keypoints], categories: Mapping[int, str], most: int) -> dict[int, Keypoints]:
    """Of a network that finds `most` points of an object. Raises UserError for more of them, or two of one name."""
    for number, named in points.items() if most else ():
        if len(named.names) > most or len(set(named.names)) < len(named.names):
            raise UserError(f"category {number}: need at most {most} keypoints, each of a name of its own")
    return {number: points[number] for number in sorted(points) if number in categories} if most else {}


def _check_threshold(threshold: Any) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UserError(f"threshold {threshold!r}: need a number from 0 to 1")


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CARD}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("files", {}), dict):
        raise UserError(f"{folder / CARD}: not the card of a bundle")
    if card.get("version") != VERSION:
        raise UserError(
            f"{folder}: bundle version {card.get('version')!r}, and this Tracesight reads {VERSION}; update it"
        )
    return card


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _replace(making: Path, folder: Path) -> None:
    """Put `making` in the place of `folder`. No system swaps folders in one step everywhere, so the old one steps
    aside first; killed in between, `_recover` puts it back."""
    old = _aside(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    making.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    if not folder.exists() and (_aside(folder) / CARD).is_file():
        _aside(folder).rename(folder)
