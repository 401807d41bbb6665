"""MoCo v1, v2 and v3 by hand, beside an implementation of their own here, and over two processes; MAE over two, too.

v3 on a vision transformer is compared with one around timm's network, under AdamW, besides.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import timm
import torch
from gloo_ranks import on_ranks
from torch import nn
from torch.nn import functional as F

from tracesight.errors import UserError
from tracesight.models.encode import Made, follow, grouped, pooled
from tracesight.models.mae import MAE
from tracesight.models.methods import METHODS, build_method
from tracesight.models.moco import MoCo, info_nce
from tracesight.models.moco_v3 import MoCoV3
from tracesight.models.norms import BatchNorm2d
from tracesight.models.vit import ViT, sincos_table
from tracesight.ops.random import keyed_uniform
from tracesight.training.optim import build_optimiser

MOMENTUM, LR = 0.9, 0.5


class Small(nn.Module):
    """An encoder of two convolutions with batch norm, D = 6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, 2, padding=1, bias=False), BatchNorm2d(6)
        self.channels, self.fc = [4, 6], None

    def features(self, x):
        first = F.relu(self.bn1(self.conv1(x)))
        return [first, F.relu(self.bn2(self.conv2(first)))]

    def forward(self, x):
        return self.fc(self.features(x)[-1].mean((2, 3)))


def small_vit():
    return ViT(8, 2, 2, None, patch=2, image_size=6, positions="sincos-yx")


def method_of(name):
    torch.manual_seed(3)
    if name == "moco-v3-vit":
        method = MoCoV3(small_vit, dim=5, hidden=7, temperature=0.5)
    elif name == "mae":
        method = MAE(8, 1, 2, patch=2, image_size=6, decoder=(8, 1, 2))
    elif name == "moco-v3":
        method = MoCoV3(Small, dim=5, hidden=7, temperature=0.5)
    else:
        numbers = {"dim": 5, "queue": 16, "temperature": 0.2, "bn_group": 2, "symmetric": name == "symmetric"}
        method = METHODS["moco-v2" if name == "symmetric" else name](Small, **numbers)
    return method.double().train()


def batches(count, size=8):
    generator = torch.Generator().manual_seed(5)
    for step in range(count):
        views = torch.randn(2, size, 3, 6, 6, generator=generator, dtype=torch.float64)
        yield views[0], views[1], torch.tensor([[11, step * size + row] for row in range(size)])


def learned(name, count, rank=0, ranks=1, parts=1):
    """Losses of each step and the state at the end; of several ranks each takes its share, averages gradients."""
    method = method_of(name)
    trained = [p for p in method.parameters() if p.requires_grad]
    losses = []
    for first, second, keys in batches(count):
        mine = torch.arange(len(keys)).chunk(ranks)[rank].chunk(parts)
        made = []
        for part in mine:
            made.append(method(*(view[part] for view in (first, second)[: method.views]), keys[part]))
            (sum(made[-1].losses.values()) / parts).backward()
        total = torch.stack([sum(m.losses.values()).detach() / parts for m in made]).sum()
        for tensor in ([total, *(p.grad for p in trained)]) if ranks > 1 else []:
            torch.distributed.all_reduce(tensor)
            tensor /= ranks
        losses.append(float(total))
        with torch.no_grad():
            for parameter in trained:
                parameter -= LR * parameter.grad
                parameter.grad = None
        if name == "mae":
            continue
        method.advance(torch.cat([m.keys for m in made]), keys[torch.cat(mine)], MOMENTUM)
    return losses, method.state_dict()


def test_loss_and_logits_by_hand():
    method = MoCo(Small, dim=2, queue=2, temperature=0.5, bn_group=2)
    method.queue.copy_(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))  # keys are columns: (0, 1) and (-1, 0)
    q, k = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    logits = method.logits(q, k)
    torch.testing.assert_close(logits, torch.tensor([[1.6, 0.0, -2.0], [1.6, 1.6, -1.2]]))
    # log(1 + e^-1.6 + e^-3.6) and log(2 + e^-2.8)
    assert float(info_nce(logits)) == pytest.approx((0.206380 + 0.723099) / 2, abs=1e-5)


def test_v3_loss_by_hand():
    method = MoCoV3(Small, dim=2, hidden=3, temperature=0.5)
    q, k = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(method.logits(q, k), torch.tensor([[2.0, 1.2], [0.0, 1.6]]))
    # 2 × 0.5 × the mean of log(1 + e^-0.8) and log(1 + e^-1.6)
    assert float(method.contrast(q, k)) == pytest.approx((0.371101 + 0.183901) / 2, abs=1e-5)


def test_the_key_encoder_follows_by_hand():
    slow, fast = nn.Linear(1, 2), nn.Linear(1, 2)
    with torch.no_grad():
        for layer, weight, bias in ((slow, [[1.0], [2.0]], [0.0, 4.0]), (fast, [[3.0], [-2.0]], [1.0, 0.0])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    follow(slow, fast, 0.75)
    assert slow.weight.flatten().tolist() == [1.5, 1.0] and slow.bias.tolist() == [0.25, 3.0]
    assert fast.weight.flatten().tolist() == [3.0, -2.0]


def test_the_queue_goes_round_in_the_order_of_draws():
    method = MoCo(Small, dim=1, queue=6, bn_group=2)
    method.queue.zero_()

    def step(draws, values):
        keys = torch.tensor([[0, draw] for draw in draws])
        method.advance(torch.tensor(values).view(len(draws), 1, 1), keys, 1.0)

    step([2, 0, 3, 1], [30.0, 10.0, 40.0, 20.0])
    assert method.queue[0].tolist() == [10, 20, 30, 40, 0, 0] and int(method.queue_ptr) == 4
    step([4, 5], [50.0, 60.0])
    step([7, 6], [80.0, 70.0])
    assert method.queue[0].tolist() == [70, 80, 30, 40, 50, 60] and int(method.queue_ptr) == 2


class Reference:
    """MoCo v1, v2 (symmetric or not) and v3 once more, written after the papers' pseudocode, group by group."""

    def __init__(self, name):
        self.name, method = name, method_of(name)
        self.v3 = name.startswith("moco-v3")
        self.q = copy.deepcopy(method.base_encoder if self.v3 else method.encoder_q)
        self.k = copy.deepcopy(self.q)
        self.head = copy.deepcopy(method.predictor) if self.v3 else None
        self.queue = [] if self.v3 else list(method.queue.T.clone())  # oldest first: the whole is replaced in order

    def encode(self, network, x):
        if self.v3:
            return network(x)
        return torch.cat([network(pair) for pair in x.view(-1, 2, *x.shape[1:])])

    def one_way(self, x_q, x_k, keys):
        q = F.normalize(self.encode(self.q, x_q), dim=1)
        order = sorted(range(len(keys)), key=lambda row: float(keyed_uniform(keys, "shuffle", 1)[row]))
        with torch.no_grad():
            mixed = F.normalize(self.encode(self.k, x_k[order]), dim=1)
            k = torch.empty_like(mixed)
            for place, row in enumerate(order):
                k[row] = mixed[place]
        losses = []
        for own, key in zip(q, k):
            scores = torch.stack([own @ key, *(own @ other for other in self.queue)]) / 0.2
            losses.append(-torch.log_softmax(scores, 0)[0])
        return torch.stack(losses).mean(), k

    def loss(self, first, second, keys):
        if not self.v3:
            loss, k = self.one_way(first, second, keys)
            if self.name != "symmetric":
                return loss, [k]
            other, k_other = self.one_way(second, first, keys)
            return loss + other, [k, k_other]
        q1, q2 = (F.normalize(self.head(self.q(x)), dim=1) for x in (first, second))
        with torch.no_grad():
            k1, k2 = (F.normalize(self.k(x), dim=1) for x in (first, second))
        right = torch.arange(len(q1))
        return sum(2 * 0.5 * F.cross_entropy(q @ k.T / 0.5, right) for q, k in ((q1, k2), (q2, k1))), []

    def step(self, first, second, keys):
        loss, new = self.loss(first, second, keys)
        trained = [*self.q.parameters(), *(self.head.parameters() if self.head else ())]
        trained = [parameter for parameter in trained if parameter.requires_grad]
        for parameter, grad in zip(trained, torch.autograd.grad(loss, trained)):
            parameter.data -= LR * grad
        for slow, fast in zip(self.k.parameters(), self.q.parameters()):
            slow.data = MOMENTUM * slow.data + (1 - MOMENTUM) * fast.data
        for keys_of_view in new:
            self.queue = [*self.queue[len(keys_of_view) :], *keys_of_view]
        return float(loss.detach())


@pytest.mark.parametrize("name", ["moco-v1", "moco-v2", "symmetric", "moco-v3", "moco-v3-vit"])
def test_step_by_step_as_an_implementation_of_its_own(name):
    reference, steps = Reference(name), 5
    expected = [reference.step(*batch) for batch in batches(steps)]
    losses, state = learned(name, steps)
    assert losses == pytest.approx(expected, abs=1e-5)
    query, key = ("base_encoder", "momentum_encoder") if reference.v3 else ("encoder_q", "encoder_k")
    for place, network in ((query, reference.q), (key, reference.k)):
        for at, parameter in network.named_parameters():
            torch.testing.assert_close(state[f"{place}.{at}"], parameter.data, rtol=0, atol=1e-5)
    if not reference.v3:
        start = int(state["queue_ptr"])  # the oldest key is where the next one goes
        assert start == steps * 8 * (2 if name == "symmetric" else 1) % 16
        torch.testing.assert_close(state["queue"].roll(-start, 1).T, torch.stack(reference.queue), rtol=0, atol=1e-5)


def of_rank(rank):
    return {name: learned(name, 3, rank, 2) for name in ("moco-v2", "symmetric", "moco-v3", "moco-v3-vit", "mae")}


def test_two_processes_equal_one():
    found = on_ranks(of_rank)
    for name in found[0]:
        losses, state = learned(name, 3)
        for own_losses, own in (found[0][name], found[1][name]):
            assert own_losses == pytest.approx(losses, abs=1e-5)
            assert own.keys() == state.keys()
            for at, tensor in state.items():
                if not at.endswith("num_batches_tracked"):
                    torch.testing.assert_close(
                        own[at], tensor, rtol=0, atol=1e-5, msg=lambda text, at=at: f"{at}: {text}"
                    )


def timms(state):
    """MoCo v3's encoder and predictor as timm and torch build them, holding `state`."""

    def layers(*widths):
        parts = []
        for number in range(len(widths) - 1):
            parts += [nn.Linear(widths[number], widths[number + 1], bias=False)]
            parts += [nn.BatchNorm1d(widths[number + 1]), nn.ReLU()] if number + 2 < len(widths) else []
        return nn.Sequential(*parts, nn.BatchNorm1d(widths[-1], affine=False))

    encoder = timm.models.VisionTransformer(
        img_size=6, patch_size=2, embed_dim=8, depth=2, num_heads=2, num_classes=1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    encoder.head = layers(8, 7, 7, 5)
    both = nn.ModuleDict({"base_encoder": encoder, "predictor": layers(5, 7, 5)}).double()
    both.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("momentum_encoder.")})
    return both


def test_v3_on_a_transformer_as_around_timms_under_adamw():
    method, options = method_of("moco-v3-vit"), {"lr": 0.01, "weight_decay": 0.1}
    begun = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    both, slow = timms(begun), timms(begun)["base_encoder"]
    base = both["base_encoder"]
    fixed = ("patch_embed.", "pos_embed")
    trained = {n: p for n, p in both.named_parameters() if not n.removeprefix("base_encoder.").startswith(fixed)}
    decaying = {n for n, p in trained.items() if p.ndim > 1 and not n.endswith("cls_token")}
    reference = torch.optim.AdamW([
        {"params": [p for n, p in trained.items() if n in decaying]},
        {"params": [p for n, p in trained.items() if n not in decaying], "weight_decay": 0.0},
    ], **options)  # fmt: skip
    optimiser, losses, expected = build_optimiser("adamw", method, **options), [], []
    for first, second, keys in batches(4):
        made = method(first, second, keys)
        losses.append(made.losses["loss_contrast"])
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
        method.advance(made.keys, keys, MOMENTUM)

        queries = [F.normalize(both["predictor"](base(x))) for x in (first, second)]
        with torch.no_grad():
            targets = [F.normalize(slow(x)) for x in (first, second)]
        right = torch.arange(len(first))
        scores = [q @ k.T / 0.5 for q, k in zip(queries, targets[::-1])]
        expected.append(sum(F.cross_entropy(s, right) for s in scores) * 2 * 0.5)
        reference.zero_grad()
        expected[-1].backward()
        reference.step()
        for late, early in zip(slow.parameters(), base.parameters()):
            late.data = MOMENTUM * late.data + (1 - MOMENTUM) * early.data
    assert [float(x.detach()) for x in losses] == pytest.approx([float(x.detach()) for x in expected], abs=1e-5)
    state = method.state_dict()
    wanted = both.state_dict() | {f"momentum_encoder.{name}": tensor for name, tensor in slow.state_dict().items()}
    assert wanted.keys() == state.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")
    # What was drawn for the patches and the positions stays, bit by bit, in both encoders; all the rest has moved.
    for name in state:
        stays = name.removeprefix("base_encoder.").removeprefix("momentum_encoder.").startswith(fixed)
        assert torch.equal(state[name], begun[name]) == stays, name
    free = MoCoV3(small_vit, dim=5, hidden=7, frozen_patch_projection=False)
    assert all(p.requires_grad == (not n.endswith("pos_embed")) for n, p in free.base_encoder.named_parameters())


def test_a_transformers_weights_begin_as_the_authors_have_them():
    method = MoCoV3(lambda: ViT(64, 1, 2, None, patch=4, image_size=16, positions="sincos-yx"), dim=4, hidden=8)
    encoder = method.base_encoder.requires_grad_(False)
    bound = (6 / (64 + 64)) ** 0.5  # of queries, keys and values each; of all three at once it would be 0.153
    assert encoder.blocks[0].attn.qkv.weight.abs().max() == pytest.approx(bound, rel=0.02)
    assert encoder.patch_embed.proj.weight.abs().max() == pytest.approx((6 / (48 + 64)) ** 0.5, rel=0.02)
    assert 0 < encoder.cls_token.abs().max() < 1e-5
    table, other = encoder.pos_embed, sincos_table(64, (4, 4))
    assert torch.equal(table, torch.cat([other[..., 32:], other[..., :32]], 2))
    # Row 2, column 1 stands at 1 + 2 × 4 + 1; the first number is the sine of the row.
    assert float(table[0, 10, 0]) == pytest.approx(0.909297) and float(table[0, 10, 32]) == pytest.approx(0.841471)
    assert [type(layer).__name__ for layer in encoder.head] == ["Linear", "Norm1d", "ReLU"] * 2 + ["Linear", "Norm1d"]
    assert [type(layer).__name__ for layer in method.predictor] == ["Linear", "Norm1d", "ReLU", "Linear", "Norm1d"]


def test_parts_of_a_batch_queue_their_keys_in_order():
    whole, parts = (learned("moco-v2", 1, parts=count)[1] for count in (1, 2))
    # The shuffling is within a part, so that keys differ; where they stand does not.
    assert torch.equal(whole["queue"][:, 8:], parts["queue"][:, 8:])
    assert not torch.equal(whole["queue"][:, :8], parts["queue"][:, :8])


def test_running_statistics_are_the_mean_over_groups():
    layer, x = BatchNorm2d(3).double().train(), torch.randn(6, 3, 4, 4, dtype=torch.float64)
    grouped(layer, x, 2)
    means = x.view(3, 2, 3, 4, 4).mean((1, 3, 4))
    variances = x.view(3, 2, 3, 4, 4).transpose(1, 2).flatten(2).var(2)
    torch.testing.assert_close(layer.running_mean, 0.1 * means.mean(0))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * variances.mean(0))
    assert layer.momentum == 0.1


def test_methods_are_built_around_encoders_of_the_catalogue():
    method = build_method("moco-v2", "cifar_resnet20", {}, {"queue": 64, "dim": 16, "bn_group": 2})
    x = torch.randn(4, 3, 32, 32)
    made = method(x, x.flip(3), torch.tensor([[0, n] for n in range(4)]))
    assert isinstance(made, Made) and made.queries.shape == (4, 16) and made.keys.shape == (4, 1, 16)
    assert pooled(method.encoder_q, x).shape == (4, 64)
    names = set(method.state_dict())
    assert {
        "queue",
        "queue_ptr",
        "encoder_q.fc.0.weight",
        "encoder_k.fc.2.bias",
        "encoder_q.layer1.0.conv1.weight",
    } <= names
    v3 = set(build_method("moco-v3", "cifar_resnet20", {}, {"hidden": 8, "dim": 4}).state_dict())
    assert {"base_encoder.fc.4.running_mean", "momentum_encoder.fc.1.weight", "predictor.3.weight"} <= v3
    assert not {"base_encoder.fc.4.weight", "predictor.4.running_mean"} & v3
    for wrong in (
        partial(build_method, "moco-v9", "resnet18", {}, {}),
        partial(build_method, "moco-v3", "resnet18", {}, {"queue": 8}),
        partial(build_method, "moco-v2", "mask_rcnn_resnet18_fpn", {}, {}),
        partial(build_method, "moco-v2", "resnet18", {}, {"bn_group": 1}),
        partial(build_method, "moco-v2", "vit_tiny_patch4", {}, {}),
        partial(build_method, "moco-v3", "vit_tiny_patch4", {"pool": "mean"}, {}),
        partial(build_method, "moco-v3", "vit_tiny_patch4", {"heads": 5}, {}),
        partial(build_method, "moco-v3", "resnet18", {}, {"frozen_patch_projection": True}),
        partial(build_method, "mae", "resnet18", {}, {}),
        partial(build_method, "mae", "vit_tiny_patch4", {}, {"hide": 1.5}),
        partial(build_method, "mae", "vit_tiny_patch4", {}, {}, {"mean": [0.5], "std": [0.2]}),
    ):
        with pytest.raises(UserError):
            wrong()
