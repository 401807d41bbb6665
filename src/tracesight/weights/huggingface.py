"""Checkpoints of Hugging Face's transformers: ViT (`ViTForImageClassification`, `ViTModel`) and ViTMAE, whole or not.

Files say `vit.encoder.layer.0.attention.attention.query` where transformers 5 says `vit.layers.0.attention.q_proj` in
memory; both are read, `vit.` may be missing, and the files' names are what goes back. Query, key and value are one
tensor here. What the names do not show: transformers' layer norms have an eps of 1e-12 unless config.json says another
`layer_norm_eps`, so that is the source's first convention; with 1e-6 the convention is "torchvision". Pictures are RGB
in 0–1, standardised as preprocessor_config.json says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from tracesight.errors import UserError
from tracesight.models.mae import encoder_state

CONVENTIONS = ("huggingface", "torchvision")

DROPPED_SUFFIX = "num_batches_tracked"

PREFIX = "vit."

# Name in the file, without `vit.` -> name in Tracesight. A pooler stands behind the features that `ViTModel` gives.
KEYS: dict[str, str | None] = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    "pooler.dense.weight": None,
    "pooler.dense.bias": None,
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
    "decoder.mask_token": "mask_token",
    "decoder.decoder_pos_embed": "decoder_pos_embed",
    "decoder.decoder_embed.weight": "decoder_embed.weight",
    "decoder.decoder_embed.bias": "decoder_embed.bias",
    "decoder.decoder_norm.weight": "decoder_norm.weight",
    "decoder.decoder_norm.bias": "decoder_norm.bias",
    "decoder.decoder_pred.weight": "decoder_pred.weight",
    "decoder.decoder_pred.bias": "decoder_pred.bias",
}
# The same of rows of layers, and of the parts of a layer: first as the hub has them, then as transformers 5 has them.
LAYERS = {
    "encoder.layer": "blocks",
    "decoder.decoder_layers": "decoder_blocks",
    "layers": "blocks",
    "decoder.decoder_encoder.layer": "decoder_blocks",  # what save_pretrained of 5.24 makes of a decoder's
}
PARTS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}

BACKBONE = "backbone.body."
BACKBONE_LEAVES = ("head",)

WRAPPER: str | None = None

LICENCE_UNKNOWN = (
    "unknown: the file states none (its page on the hub does; Google's ViTs and the hub's copies of MAE come under "
    "Apache-2.0, the weights of MAE's authors under CC BY-NC 4.0: no commerce)"
)

_THEIRS = re.compile(rf"({'|'.join(map(re.escape, LAYERS))})\.(\d+)\.(.+)\.(weight|bias)")
_OURS = re.compile(r"(blocks|decoder_blocks)\.(\d+)\.(.+)\.(weight|bias)")
_BACK_KEYS = {ours: theirs for theirs, ours in KEYS.items() if ours is not None}
_BACK_LAYERS = {ours: theirs for theirs, ours in reversed(LAYERS.items())}
_BACK_PARTS = {ours: theirs for theirs, ours in reversed(PARTS.items())}

# What of the names a file of this source always has.
_SHOWN = ("cls_token", "pos_embed", "patch_embed.proj.weight")


def published(sha256: str) -> None:
    """Files on the hub are known by name only."""
    return


def keeps(name: str) -> bool:
    """Whether a tensor of the file is taken over."""
    name = name.removeprefix(PREFIX)
    return KEYS.get(name, name) is not None


def note(state: Mapping[str, Tensor]) -> str | None:
    """What no tensor shows and a user must know."""
    if "mask_token" in state:
        return "norm_pix_loss of config.json says whether patches were normalised; if not, build with normalised=False"
    return (
        "pictures are standardised by ImageNet's mean and deviation, as ViTMAE's are; Google's ViTs want 0.5 and 0.5, "
        "as preprocessor_config.json says (image_mean, image_std): call tracesight.models.pixels.remember_pixels then"
    )


def to_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Tracesight's names, queries, keys and values joined; those dropped on purpose are missing.

    Raises UserError, naming the tensor: this is no ViT of transformers, or a part of an attention is missing.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = _name_here(name)
        if new in renamed:
            raise UserError(f"tensor '{name}' is there a second time, under another version's name")
        if new is not None:
            renamed[new] = tensor
    for name in _SHOWN:
        if name not in renamed:
            raise UserError(f"tensor '{_name_there(name)}' is missing: this is no ViT or ViTMAE of transformers")
    return _joined(renamed)


def for_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a ViT takes of a file: all but the decoder."""
    return encoder_state(state)


def from_tracesight(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under the hub's names, as `from_pretrained` of transformers reads it from model.safetensors.

    Of a classifier for `ViTForImageClassification`, of a whole MAE for `ViTMAEForPreTraining`, of an encoder for
    `ViTModel` (add_pooling_layer=False) and `ViTMAEModel`. Raises UserError: transformers has no place for a tensor.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        parts = {name: tensor}
        if ".attn.qkv." in name:
            parts = {name.replace(".qkv.", f".{one}."): part for one, part in zip("qkv", tensor.chunk(3))}
        # Files of safetensors hold neither shared memory nor other orders of dimensions.
        renamed |= {
            _name_there(part): tensor.clone(memory_format=torch.contiguous_format) for part, tensor in parts.items()
        }
    return renamed


def _name_here(name: str) -> str | None:
    """Tracesight's name of a tensor, None where it is dropped, their own where there is none."""
    short = name.removeprefix(PREFIX)
    match = _THEIRS.fullmatch(short)
    if match is None or match[3] not in PARTS:
        return KEYS.get(short, name)
    return f"{LAYERS[match[1]]}.{match[2]}.{PARTS[match[3]]}.{match[4]}"


def _name_there(name: str) -> str:
    """The hub's name of a tensor. Raises UserError: there is none."""
    match = _OURS.fullmatch(name)
    if match is not None and match[3] in _BACK_PARTS:
        theirs = f"{_BACK_LAYERS[match[1]]}.{match[2]}.{_BACK_PARTS[match[3]]}.{match[4]}"
    elif name in _BACK_KEYS:
        theirs = _BACK_KEYS[name]
    else:
        said = ": it classifies the class token, pool='token' here" if name.startswith("fc_norm.") else ""
        raise UserError(f"tensor '{name}' has no place in a ViT or ViTMAE of transformers{said}")
    return theirs if theirs.startswith(("decoder.", "classifier.")) else PREFIX + theirs


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one tensor. Raises UserError: one of the three is missing, or of another shape."""
    joined: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.+\.attn\.)[qkv]\.(weight|bias)", name)
        if match is None:
            joined[name] = tensor
            continue
        whole = f"{match[1]}qkv.{match[2]}"
        if whole in joined:
            continue
        three = [f"{match[1]}{one}.{match[2]}" for one in "qkv"]
        for part in three:
            if part not in state:
                raise UserError(f"tensor '{_name_there(part)}' is missing, though '{_name_there(name)}' is there")
            if state[part].shape != tensor.shape:
                raise UserError(
                    f"tensor '{_name_there(part)}' has shape {tuple(state[part].shape)}, and "
                    f"'{_name_there(name)}' {tuple(tensor.shape)}: they must be equal"
                )
        joined[whole] = torch.cat([state[part] for part in three])
    return joined
