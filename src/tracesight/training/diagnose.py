"""Where numbers went wrong: the first tensor of a step that holds values which are not finite.

A loss that is not a number says nothing about its cause. The step is run once more, and its tensors are looked at in
the order in which things happen: pictures and labels, weights, the outputs of the modules, the losses, the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tracesight.data.batch import Batch, Loaded, Targets
from tracesight.training.fit import is_out_of_memory

# What of the targets of a picture is looked at, and what it is called.
_LEARNT = {"boxes": "boxes", "mask_boxes": "boxes of masks", "shares": "labels", "second": "second views"}


class _Origin(NamedTuple):
    """A module whose output is not finite although its inputs were; or "" for what no module put out.

    masked: only -inf, as scores hold that are masked on purpose.
    """

    module: str
    found: str
    masked: bool


def first_bad_input(loaded: Loaded, pictures: Sequence[str]) -> str | None:
    """The first picture of a batch with pixels or boxes that are not finite, or None: "images of a.png: 3 of …".

    Args:
        pictures: what each of the batch's pictures is called.
    """
    return _bad_picture(loaded.batch, loaded.targets, pictures)


def first_bad_tensor(model: nn.Module, losses_of: Callable[[], Mapping[str, Tensor]]) -> str | None:
    """The first tensor of a step that is not finite, as part of a sentence; None if all are finite.

    Weights and buffers come first, then, in one more forward pass, the first module whose output holds NaN or infinity
    while its inputs were finite, then the losses, then the gradients from the last parameter to the first, then their
    norm. An infinity that does no harm counts for nothing: with finite losses and gradients there is nothing to find,
    and a module that puts out -inf alone is named only if no other did worse.

    Afterwards everything is as before: `training`, buffers, `.grad`, random numbers, hooks. Where memory does not
    suffice for the whole search, what was found until then counts.

    Args:
        model: the module that computes; `losses_of` must call it, and no wrapper that hides its modules.
        losses_of: the losses of the step by name, scalars.
    """
    found = _bad_weight(model)
    if found is not None:
        return found
    origins: list[_Origin] = []
    try:
        with _restored(model), torch.enable_grad():
            with _watched(model, origins):
                losses = losses_of()
            found = _bad_loss(losses) or _bad_gradient(model, losses)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = "too little memory is left to look for the first tensor"
    if found is None or not origins:
        return found
    return next((origin for origin in origins if not origin.masked), origins[0]).found


def _bad_weight(model: nn.Module) -> str | None:
    for kind, named in (("weight", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            # A constant may hold -inf on purpose: masks of attention do.
            if not _finite(tensor) and not (kind == "buffer" and _masked(tensor)):
                count = int((~torch.isfinite(tensor)).sum())
                return f"{kind} {name} holds {count} value{'s that are' if count != 1 else ' that is'} not finite"
    return None


def _bad_loss(losses: Mapping[str, Tensor]) -> str | None:
    for name, loss in losses.items():
        if not _finite(loss):
            return f"{name} itself: all that goes into it is finite"
    return None


def _bad_gradient(model: nn.Module, losses: Mapping[str, Tensor]) -> str | None:
    total = torch.stack(list(losses.values())).sum()
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad][::-1]
    if not named or not total.requires_grad:
        return None
    # Not by backward(), which would add to what is in `.grad`.
    gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    there = [(name, gradient) for (name, _), gradient in zip(named, gradients) if gradient is not None]
    for name, gradient in there:
        if not _finite(gradient):
            return f"gradient of {name}: {_said(gradient)}"
    if not there or _finite(torch.nn.utils.get_total_norm([gradient for _, gradient in there])):
        return None
    greatest, name = max((float(gradient.abs().max()), name) for name, gradient in there if gradient.numel())
    return f"norm of the gradient, whose values are finite, the greatest of them {greatest:.3g} in {name}"


@contextmanager
def _watched(model: nn.Module, origins: list[_Origin]) -> Iterator[None]:
    """Within the block, every origin of values that are not finite is noted, in the order of the forward pass."""
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if origins or (bad := _first_bad((*args, *kwargs.values()))) is None:
            return
        where = f"input of {names[module] or 'the model'}{bad[0]}: {_said(bad[1])}"
        if module is model and args and isinstance(args[0], Batch):
            targets = next((value for value in (*args, *kwargs.values()) if isinstance(value, Targets)), None)
            numbers = [f"picture {number + 1}" for number in range(args[0].images.shape[0])]
            where = _bad_picture(args[0], targets, numbers) or where
        origins.append(_Origin("", where, _masked(bad[1])))

    def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        name = names[module]
        # What the model as a whole puts out is the losses, and they come next.
        if module is model or (bad := _first_bad(output)) is None:
            return
        inside = any(origin.module.startswith(f"{name}.") for origin in origins)
        if not inside and _first_bad((*args, *kwargs.values())) is None:
            origins.append(_Origin(name, f"output of {name}{bad[0]}: {_said(bad[1])}", _masked(bad[1])))

    handles: list[Any] = []
    try:
        for module in names:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Buffers (the statistics of batch norm) and the state of random numbers are put back afterwards."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, held in buffers:
                    buffer.copy_(held)


def _bad_picture(batch: Batch, targets: Any, pictures: Sequence[str]) -> str | None:
    parts = {"images": batch.images}
    parts |= {said: getattr(targets, name) for name, said in _LEARNT.items() if hasattr(targets, name)}
    for kind, rows in parts.items():
        for name, row in zip(pictures, rows if rows is not None else ()):
            if not _finite(row):
                return f"{kind} of {name}: {_said(row)}"
    return None


def _first_bad(values: Any) -> tuple[str, Tensor] | None:
    """The first tensor in nested `values` that is not finite, and its place there: "" or " (1.loss_mask)"."""
    for path, tensor in _tensors(values):
        if not _finite(tensor):
            keys = path[1:] if isinstance(values, tuple) and len(values) == 1 else path
            return (f" ({'.'.join(keys)})" if keys else ""), tensor
    return None


def _tensors(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Every tensor in tuples, lists, dicts and NamedTuples, however nested, with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, (*path, str(key)))
    elif isinstance(value, tuple | list):
        for key, part in zip(getattr(value, "_fields", range(len(value))), value):
            yield from _tensors(part, (*path, str(key)))


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())


def _masked(tensor: Tensor) -> bool:
    """Whether everything that is not finite is -inf."""
    return not bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())


def _said(tensor: Tensor) -> str:
    tensor = tensor.detach()
    finite = torch.isfinite(tensor)
    good, count = int(finite.sum()), tensor.numel()
    if good == 0:
        return f"none of its {count} values is finite" if count > 1 else f"its value is {float(tensor)}"
    said = f"{count - good} of {count} values {'are' if count - good != 1 else 'is'} not finite"
    return f"{said}, the greatest finite one is {float(tensor[finite].abs().max()):.3g}"
