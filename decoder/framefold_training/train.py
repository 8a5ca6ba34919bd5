"""The training loop: a time budget, a checkpoint every five minutes, exact resumption, a JSON line for each, a curve.

Notable: each clip's loss is relative to what plain averaging would leave, so that fast and slow scenes count alike; all stages'
estimates are scored; what is exported is the running average of the weights. The learning rate follows the share of the budget
that is spent; a step that takes far longer than its neighbours (the process was stopped) counts as one of them. Run, or run
again to resume; with --export the net is scored, exported and gets its card when the budget is spent:

    python -m framefold_training.train --tier fast --minutes 80 --out training-runs/fast
    python -m framefold_training.train --start decoder/framefold_decoder/models/fast.onnx --minutes 40 --out ...
    python -m framefold_training.train --tier best --start decoder/framefold_decoder/models/fast.onnx \
        --minutes 25 --device cuda --batch 64 --workers 14 --slots 1024 --out ...

On a CPU every thread learns from its own share of a batch: they wait for each other once a step, and not, as torch's threads
do, in every layer, which on a machine with other work is many times slower.
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_training.birnat import BirnatSpec
from framefold_training.checkpoint import CHECKPOINT, State, read_checkpoint, write_checkpoint
from framefold_training.clock import Clock
from framefold_training.curve import plot_curve
from framefold_training.data import Batch, DataSpec, make_batch
from framefold_training.evaluate import validate
from framefold_training.exported import read_start, told
from framefold_training.growing import fitted
from framefold_training.loss import Loss, relative_loss
from framefold_training.pool import Pool, PoolSpec, open_pool
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
    workers: int = 1
    """Processes that render movies; 0: this one."""
    threads: int = 1
    """That learn, each from its share of a batch."""
    scored: bool = True
    """Whether the log holds scores on movies not trained on, besides the loss."""
    net: AnySpec = field(default_factory=lambda: TIERS["fast"])
    data: DataSpec = field(default_factory=DataSpec)

    def described(self) -> dict[str, Any]:
        """As plain values."""
        return json.loads(json.dumps({**asdict(self), "net": describe(self.net)}))  # type: ignore[no-any-return]


class Run:
    """A net in training: what a checkpoint holds, and one step of it."""

    def __init__(self, spec: TrainSpec, loss: Loss | None = None) -> None:
        """`loss`: `relative_loss` unless another is given."""
        torch.manual_seed(spec.data.seed)
        self.spec, self.step, self.minutes = spec, 0, 0.0
        self.loss = loss or relative_loss
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


def train(spec: TrainSpec, out: Path, start: Path | None = None) -> Run:
    """Train into the folder `out` until the budget is spent, from its checkpoint if there is one, or else from `start`."""
    out.mkdir(parents=True, exist_ok=True)
    run, clock = Run(spec), Clock()
    if (out / CHECKPOINT).exists():
        run.restore(read_checkpoint(out))
    elif start:
        run.begin_with(start)
    with open_pool(spec.data.pool, run.step, spec.workers, torch.device(spec.device)) as pool:
        pool.at(run.step)  # filled before the clock runs
        while run.progress < 1:
            losses = _until_checkpoint(run, pool, clock)
            write_checkpoint(out, run.state())
            _log(run, losses, out)
    return run


def _until_checkpoint(run: Run, pool: Pool, clock: Clock) -> list[float]:
    """Learn until a checkpoint is due or the budget is spent."""
    due, losses = run.minutes + run.spec.checkpoint_minutes, list[Tensor]()
    clock.start()
    while run.progress < 1 and run.minutes < due:
        losses.append(run.learn(make_batch(run.spec.data, pool.at(run.step), run.step)))
        if run.spec.device == "cuda" and run.step % 20 == 0:
            torch.cuda.synchronize()  # the clock is honest, and the host not far ahead
        run.minutes += clock.step()
    return [float(loss) for loss in losses]


def _log(run: Run, losses: list[float], out: Path) -> None:
    """Append a line: mean of the last losses, and scores of the averaged net on movies not trained on; draw the curve."""
    recent = losses[-200:]
    line = {"step": run.step, "minutes": round(run.minutes, 2), "loss": round(sum(recent) / max(len(recent), 1), 4)}
    if run.spec.scored:
        line |= validate(run.average, run.spec.data.ratios[0])
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
    plot_curve(out)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.train", description=__doc__)
    parser.add_argument("--tier", choices=sorted(TIERS), default="fast", help="which net")
    parser.add_argument(
        "--ratio", default="20,10,30,2-32", help="frames per snapshot: numbers and ranges, mostly the first three"
    )
    parser.add_argument("--minutes", type=float, default=50.0, help="training time, over all resumptions")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--size", type=int, default=96, help="side of the crops, pixels")
    parser.add_argument("--rate", type=float, default=8e-4, help="peak learning rate")
    parser.add_argument("--workers", type=int, default=1, help="processes that render movies")
    parser.add_argument("--threads", type=int, default=1, help="that learn, each from its share of a batch")
    parser.add_argument("--slots", type=int, default=96, help="movies held, 8 MB each")
    parser.add_argument("--life", type=int, default=8, help="steps until one of them is replaced")
    parser.add_argument("--atoms", default="", help="file of multislice movies, made by framefold_training.atoms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a run's folder or an exported model (.onnx) to begin with; default: chance")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--export", type=Path, help="write this model (path without suffix) and its card at the end")
    given = parser.parse_args(arguments)
    if not given.minutes > 0:
        raise FramefoldError(f"--minutes is {given.minutes:g}, expected more than 0", hint="Give a time to train for")
    if given.device == "cuda" and not torch.cuda.is_available():
        hint = "Install torch for CUDA and check the driver with nvidia-smi, or train with --device cpu"
        raise FramefoldError("--device is cuda, but torch finds no GPU it can use", hint=hint)
    ratios = parse_ratios(given.ratio)
    tier = TIERS[given.tier]
    net = replace(tier, ratio=ratios[0]) if isinstance(tier, BirnatSpec) else tier
    pool = PoolSpec(slots=given.slots, life=given.life, atoms=given.atoms, seed=given.seed)
    data = DataSpec(ratios, given.size, given.batch, given.seed, pool=pool)
    rest = {name: getattr(given, name) for name in ("minutes", "device", "workers", "threads", "rate")}
    train(TrainSpec(net=net, data=data, **rest), given.out, given.start)
    if given.export:
        from framefold_training.export import export  # onnx, needed only now

        export(given.out, given.export)


def parse_ratios(text: str) -> tuple[int, ...]:
    """`20,2-4` -> (20, 2, 3, 4). Raises `FramefoldError` when it is not numbers and ranges from 2 to 32."""
    try:
        bounds = [list(map(int, part.split("-"))) for part in text.split(",")]
        ratios = tuple(dict.fromkeys(ratio for low, *high in bounds for ratio in range(low, (high or [low])[0] + 1)))
    except ValueError:
        ratios = ()
    if not ratios or min(ratios) < 2 or max(ratios) > 32:
        raise FramefoldError(f"ratio {text!r} is not numbers and ranges from 2 to 32", hint="For example 20,10,30,2-32")
    return ratios


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
