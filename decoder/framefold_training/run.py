"""A net in training: what a run is, one step of it, and what its checkpoint holds. The loop around it is `train.py`.

Notable: what is exported is the running average of the weights; the learning rate follows the share of the budget spent.
On a CPU every thread learns from its own share of a batch: they wait for each other once a step, and not, as torch's threads
do, in every layer, which on a machine with other work is many times slower.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_training.checkpoint import State
from framefold_training.data import Batch, DataSpec
from framefold_training.exported import read_start, told
from framefold_training.growing import fitted
from framefold_training.loss import SNAPSHOT_WEIGHT, Loss, visible_loss
from framefold_training.tiers import TIERS, AnyNet, AnySpec, build, describe, recall

AVERAGING = 0.999
"""Of the weights, per step, once training has gone on for long."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of a weight."""


@dataclass(frozen=True)
class TrainSpec:
    """One run. All but `minutes` and `device` may be read back from a checkpoint."""

    minutes: float = 50.0
    """Training time, over all resumptions."""
    steps: int | None = None
    """Instead of `minutes`: a number of steps, which repeats exactly."""
    device: str = "cpu"
    rate: float = 8e-4
    """Peak learning rate."""
    checkpoint_minutes: float = 5.0
    snapshot_weight: float = SNAPSHOT_WEIGHT
    """Of the snapshot's error in the loss."""
    workers: int = 1
    """Processes that render movies; 0: this one."""
    threads: int = 1
    """That learn, each from its share of a batch."""
    scored: bool = True
    """Whether the log holds scores on movies not trained on, besides the loss."""
    net: AnySpec = field(default_factory=lambda: TIERS["fast"])
    data: DataSpec = field(default_factory=DataSpec)

    def __post_init__(self) -> None:
        """Raise `FramefoldError` for what nothing could train with."""
        if self.steps is None and not self.minutes > 0:
            raise FramefoldError(f"minutes is {self.minutes:g}, expected more than 0", hint="Give a time to train for")
        if not self.snapshot_weight >= 0:
            raise FramefoldError(f"snapshot_weight is {self.snapshot_weight:g}, expected 0 or more")
        if self.threads < 1:
            raise FramefoldError(f"threads is {self.threads}, expected 1 or more")
        if self.workers < 0:
            raise FramefoldError(f"workers is {self.workers}, expected 0 or more")
        if self.device == "cuda" and not torch.cuda.is_available():
            hint = "Install torch for CUDA and check the driver with nvidia-smi, or train with --device cpu"
            raise FramefoldError("device is cuda, but torch finds no GPU it can use", hint=hint)

    def described(self) -> dict[str, Any]:
        """As plain values."""
        return json.loads(json.dumps({**asdict(self), "net": describe(self.net)}))  # type: ignore[no-any-return]


class Run:
    """A net in training: what a checkpoint holds, and one step of it."""

    def __init__(self, spec: TrainSpec, loss: Loss | None = None) -> None:
        """`loss`: `visible_loss` at the spec's weight unless another is given."""
        torch.manual_seed(spec.data.seed)
        self.spec, self.step, self.minutes = spec, 0, 0.0
        self.loss = loss or partial(visible_loss, weight=spec.snapshot_weight)
        self.start: dict[str, Any] = {}
        """What is told of the net that this run began with; empty: chance."""
        self.net = self._to_device(build(spec.net))
        self.average = self._to_device(build(spec.net)).eval().requires_grad_(False)
        self.average.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=spec.rate, weight_decay=1e-4, fused=True)
        self._threads = ThreadPoolExecutor(spec.threads, initializer=torch.set_num_threads, initargs=(1,))

    @property
    def progress(self) -> float:
        """Share of the budget that is spent; 1 or more: done."""
        return self.step / self.spec.steps if self.spec.steps else self.minutes / self.spec.minutes

    def learn(self, batch: Batch) -> Tensor:
        """One step on a batch; returns the loss, still on the device."""
        rate = self.spec.rate * min(1, (self.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(1, self.progress)) + 0.003)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = batch.split(self.spec.threads) if self.spec.threads > 1 else [batch]
        learn = self._threads.map if len(parts) > 1 else map
        losses, gradients = zip(*learn(self._gradients, parts), strict=True)
        for parameter, *shares in zip(self.net.parameters(), *gradients, strict=True):
            # in the parameter's own memory layout: the fused optimizer does not look at strides
            parameter.grad = torch.empty_like(parameter).copy_(torch.stack(shares).sum(0) / len(batch))
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.1)
        self.optimizer.step()
        weight = 1 - min(AVERAGING, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.net.parameters()], weight)
        self.step += 1
        return torch.stack(losses).sum() / len(batch)

    def _gradients(self, part: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss summed over samples, and its gradients."""
        loss = self.loss(self.net, part) * len(part)
        return loss.detach(), torch.autograd.grad(loss, list(self.net.parameters()))

    def state(self) -> State:
        """What a checkpoint holds."""
        training = {f"net/{name}": one for name, one in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            moments = self.optimizer.state[parameter]
            training |= {f"{kind}/{name}": moments[kind] for kind in MOMENTS}
        progress = {"step": self.step, "minutes": self.minutes, "spec": self.spec.described()}
        return State(progress | ({"start": self.start} if self.start else {}), self.average.state_dict(), training)

    def begin_with(self, model: Path) -> None:
        """Take the weights of a run or an exported model, grown where it is less deep. Raises `ModelError` if it cannot."""
        state = read_start(model)
        found = recall(state.progress["spec"]["net"])
        weights = fitted(state.weights, found, self.spec.net)
        if weights is None:
            hint = "Choose another --start or --tier; a net can grow in stages and blocks only"
            raise ModelError(f"the net of {model} is {describe(found)}, expected {describe(self.spec.net)}", hint=hint)
        self.net.load_state_dict(weights)
        self.average.load_state_dict(weights)
        self.start = told(model, state)

    def restore(self, state: State) -> None:
        """Go on from a checkpoint of the same net and data. Raises `ModelError` when it is another's."""
        for part in ("net", "data"):
            mine, found = (dict(one[part]) for one in (self.spec.described(), state.progress["spec"]))
            if mine | {"halo": 0} != found | {"halo": 0}:  # training does not know of it
                raise ModelError(f"the checkpoint was made with {part} {found}, expected {mine}", hint="Choose another --out")
        self.step, self.minutes = state.progress["step"], state.progress["minutes"]
        self.start = state.progress.get("start", {})
        self.average.load_state_dict(state.weights)
        self.net.load_state_dict(state.weights)
        if not state.training:
            return
        names = [name for name, _ in self.net.named_parameters()]
        self.net.load_state_dict({name: state.training[f"net/{name}"] for name in state.weights})
        moments = {
            i: {"step": torch.tensor(float(self.step)), **{kind: state.training[f"{kind}/{name}"] for kind in MOMENTS}}
            for i, name in enumerate(names)
        }
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def _to_device(self, net: AnyNet) -> AnyNet:
        return net.to(self.spec.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
