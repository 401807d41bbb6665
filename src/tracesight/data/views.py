"""Random views of pictures, from which is learnt without labels: cut, resized, turned, coloured, greyed, blurred.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (2018), section 4; blur: Chen et
al., "A Simple Framework for Contrastive Learning" (SimCLR, 2020), appendix A; solarisation: Grill et al., "Bootstrap
Your Own Latent" (2020), appendix B.

A view is cut and resized picture by picture, since pictures differ in size; all else is `changed`, one function on a
batch, which runs in the workers where the network is on the CPU and on the GPU otherwise.

Deviations from torchvision's transforms, on which the papers rest: brightness, contrast, saturation, hue and grey come
in this order, as one matrix a picture, and are clipped once at the end; hue turns in YIQ and not in HSV, so that what
is light stays so; the blur is a Gaussian itself, cut at three deviations, and not Pillow's boxes.

Letters: N pictures, S side of a view (oblong ones are S × T), C channels, P = 12 numbers of a change, which are for
RGB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.data.colour import LUMA, colour_matrix
from tracesight.data.random import generator
from tracesight.data.whole import resized_window

if TYPE_CHECKING:
    from torch import Tensor

# Of a change: a matrix of colours, the share of the mean grey that is added (contrast), the deviation of the blur in
# pixels, and whether it is solarised.
MATRIX, LIFT, SIGMA, SOLARISED = slice(0, 9), 9, 10, 11
NUMBERS = 12
_DRAWS = 56  # 40 of a cut, and one a choice; the rest is kept free
_CACHE = 1 << 18  # numbers that are worked on at a time on a CPU: what fits into the caches of a core
_WIDEST = 16  # pixels on each side that a blur looks at, at most


@dataclass(frozen=True)
class View:
    """What becomes of a picture.

    image_size: side in pixels, or (height, width). area, ratio: share of the picture that is cut out, and its width
    over height beside that of the view (`whole.resized_window`). flip: half the time. jitter: most of the changes in
    brightness, contrast, saturation (factors in [max(0, 1 - s), 1 + s]) and hue (turns of ± s of a circle). blur: range
    of the Gaussian's deviation in pixels of the view. chances: of jitter, grey, blur and solarisation, 0 to 1. Each
    choice has random numbers of its own: changing one changes no other.
    """

    image_size: int | tuple[int, int]
    area: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_chance: float = 0.8
    grey_chance: float = 0.2
    blur: tuple[float, float] = (0.1, 2.0)
    blur_chance: float = 0.5
    solarise_chance: float = 0.0

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the view."""
        return sides_of(self.image_size)

    def __call__(self, image: np.ndarray, seed: int, draw: int, purpose: str) -> tuple[Tensor, np.ndarray]:
        """The view of pixels (H, W, C) before its change, (C, S, S) of their kind, and that change, (P,) float32."""
        draws = generator(seed, draw, purpose).random(_DRAWS)
        shape = self.sides[1] / self.sides[0]
        ratio = (self.ratio[0] * shape, self.ratio[1] * shape)
        window = resized_window(image.shape[0], image.shape[1], self.area, ratio, draws)
        return cut(image, window, self.sides, self.flip and draws[40] < 0.5), self.change(draws[41:])

    def change(self, draws: np.ndarray) -> np.ndarray:
        """(P,) float32 of at least nine uniform numbers."""
        brightness = contrast = saturation = 1.0
        angle = 0.0
        if draws[0] < self.jitter_chance:
            brightness, contrast, saturation = (_factor(s, u) for s, u in zip(self.jitter[:3], draws[1:4]))
            angle = 2 * math.pi * self.jitter[3] * (2 * float(draws[4]) - 1)
        if draws[5] < self.grey_chance:
            saturation = 0.0
        change = np.zeros(NUMBERS, np.float32)
        change[MATRIX] = (colour_matrix(saturation, angle) * (brightness * contrast)).ravel()
        change[LIFT] = (1 - contrast) * brightness
        if draws[6] < self.blur_chance:
            change[SIGMA] = self.blur[0] + (self.blur[1] - self.blur[0]) * draws[7]
        change[SOLARISED] = draws[8] < self.solarise_chance
        return change


def sides_of(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a side or a pair."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def cut(image: np.ndarray, window: Sequence[int], sides: tuple[int, int], turned: bool) -> Tensor:
    """(C, S, S): what lies in `window` (top, left, height, width), resized with antialiasing; turned: mirrored.

    The filter is Pillow's bilinear one, in torch's integer arithmetic, which takes a quarter of the time.
    """
    import torch
    from torch.nn import functional as F

    top, left, height, width = window
    pixels = torch.from_numpy(np.array(image[top : top + height, left : left + width]))
    planes = pixels.permute(2, 0, 1)[None]
    if (height, width) != sides:
        planes = F.interpolate(planes, sides, mode="bilinear", antialias=True)
    return (planes.flip(3) if turned else planes)[0]


def changed(images: Tensor, changes: Tensor) -> Tensor:
    """Views (N, C, S, S) uint8 with `changes` (N, P) made: float32 in 0–1, channels last.

    On a CPU a few at a time, by one thread, so that the bits do not depend on how many there are.
    """
    import torch

    out = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=torch.channels_last)
    weights = torch.tensor(LUMA, dtype=torch.float32).to(images.device)
    matrices = changes[:, MATRIX].view(-1, 3, 3) / 255
    at_once = images.shape[0] if images.is_cuda else max(1, _CACHE // images[0].numel())
    with _one_thread(images):
        for start in range(0, images.shape[0], at_once):
            part = slice(start, start + at_once)
            flat = images[part].to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
            shift = changes[part, LIFT] * ((flat.mean(2) / 255) * weights).sum(1)
            coloured = (
                torch.baddbmm(shift[:, None, None], matrices[part], flat).clamp_(0, 1).view(-1, *images.shape[1:])
            )
            out[part] = _solarised(_blurred(coloured, changes[part, SIGMA]), changes[part, SOLARISED])
    return out


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Each picture by a Gaussian of its deviation (N,) in pixels, 0 for none; borders are mirrored."""
    import torch

    # Reading it is free on a CPU only; elsewhere all deviations are taken to be large.
    widest = _WIDEST if images.is_cuda else _reach(float(sigma.max()), _WIDEST)
    widest = min(widest, images.shape[2] - 1)
    if widest == 0:
        return images
    places = torch.arange(widest + 1, device=images.device, dtype=torch.float32)
    # A deviation of 0 leaves the middle alone. What lies beyond three deviations does not count.
    taps = torch.exp(-0.5 * (places / sigma[:, None].clamp(min=1e-3)) ** 2) * (places <= torch.ceil(3 * sigma)[:, None])
    taps = taps / (2 * taps.sum(1, keepdim=True) - 1)
    if not images.is_cuda:  # each by itself: most work is for the widest, and numbers are quicker than tensors of them
        rows = zip(images.split(1), sigma.tolist(), taps.tolist())
        return torch.cat(
            [image if width == 0 else _summed(image, its[: _reach(width, widest) + 1]) for image, width, its in rows]
        )
    return _summed(images, list(taps[:, :, None, None, None].unbind(1)))


def _reach(sigma: float, widest: int) -> int:
    return min(widest, math.ceil(3 * sigma))


def _summed(images: Tensor, taps: Sequence[Any]) -> Tensor:
    """Each pixel's neighbours above and below, then left and right, weighted by `taps`: of the pixel itself first."""
    import torch
    from torch.nn import functional as F

    far, both = len(taps) - 1, torch.empty_like(images)
    for axis in (2, 3):
        length = images.shape[axis]
        padded = F.pad(images, (0, 0, far, far) if axis == 2 else (far, far, 0, 0), mode="reflect")
        images = images * taps[0]
        for place in range(1, far + 1):
            torch.add(padded.narrow(axis, far - place, length), padded.narrow(axis, far + place, length), out=both)
            if isinstance(taps[place], float):
                images.add_(both, alpha=taps[place])
            else:
                images.addcmul_(both, taps[place])
    return images


def _solarised(images: Tensor, wanted: Tensor) -> Tensor:
    """Where `wanted` (N,) is not 0, what is lighter than the middle is turned into its negative."""
    import torch

    if not images.is_cuda and not bool(wanted.any()):
        return images
    there = (wanted != 0)[:, None, None, None]
    return torch.where(there & (images >= 0.5), 1 - images, images)


def _factor(most: float, draw: float) -> float:
    low = max(0.0, 1.0 - most)
    return low + (1.0 + most - low) * float(draw)


@contextmanager
def _one_thread(images: Tensor) -> Iterator[None]:
    """Arithmetic on a CPU by one thread."""
    import torch

    threads: Any = torch.get_num_threads()
    if images.is_cuda or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
