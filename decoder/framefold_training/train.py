"""The training loop: a time budget, bf16, a checkpoint every five minutes, exact resumption, a JSON line per checkpoint.

Notable: each clip's loss is relative to what plain averaging would leave, so that fast and slow scenes count alike; all stages'
estimates are scored. The learning rate follows the share of the budget that is spent. Run, or run again to resume:

    python -m framefold_training.train --ratio 20 --minutes 50 --out training-runs/b20

On a machine with other work set OMP_WAIT_POLICY=passive: torch's threads otherwise spin for each other, ten times slower.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from framefold_protocol.errors import FramefoldError, ModelError
from framefold_training.checkpoint import CHECKPOINT, State, read_checkpoint, write_checkpoint
from framefold_training.data import Batch, DataSpec, prefetched
from framefold_training.evaluate import clips, of_net, score, summary
from framefold_training.model import Net, NetSpec

STAGE_WEIGHTS = (0.2, 0.4, 1.0)
"""Weights of the stages' estimates in the loss, the last stage's last."""


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
    """Processes that make the batches; 0: this one."""
    scored: bool = True
    """Whether the log holds scores on movies not trained on, besides the loss."""
    net: NetSpec = field(default_factory=NetSpec)
    data: DataSpec = field(default_factory=DataSpec)


class Run:
    """A net in training: what a checkpoint holds, and one step of it."""

    def __init__(self, spec: TrainSpec) -> None:
        torch.manual_seed(spec.data.seed)
        self.spec, self.step, self.minutes = spec, 0, 0.0
        self.net = Net(spec.net).to(spec.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=spec.rate, weight_decay=1e-4)

    @property
    def progress(self) -> float:
        """Share of the budget that is spent; 1 or more: done."""
        return self.step / self.spec.steps if self.spec.steps else self.minutes / self.spec.minutes

    def learn(self, batch: Batch) -> float:
        """One step on a batch; returns the loss."""
        rate = self.spec.rate * min(1, (self.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(1, self.progress)) + 0.003)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = relative_loss(self.net, batch, self.spec.device)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.1)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def state(self) -> State:
        """What a checkpoint holds."""
        progress = {"step": self.step, "minutes": self.minutes, "spec": asdict(self.spec)}
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), **progress}

    def restore(self, state: State) -> None:
        """Go on from a checkpoint of the same net and data. Raises `ModelError` when it is another's."""
        for part in ("net", "data"):
            mine, found = asdict(getattr(self.spec, part)), state["spec"][part]
            if mine != found:
                raise ModelError(f"the checkpoint was made with {part} {found}, expected {mine}", hint="Choose another --out")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes = state["step"], state["minutes"]


def relative_loss(net: Net, batch: Batch, device: str) -> Tensor:
    """Root mean square error of each clip over that of the plain mean of its frames, averaged; all stages weighed."""
    snapshots, exposures, masks, noise, truth = (torch.from_numpy(a).to(device, non_blocking=True) for a in batch.arrays())
    with torch.autocast(device, dtype=torch.bfloat16):
        estimates = net.estimates(snapshots, exposures, masks, noise)
    motion = ((truth.mean(1, keepdim=True) - truth) ** 2).mean((1, 2, 3))
    # a quarter of the mean's shot noise: a good denoiser of a still scene gets about there
    rival = motion + 0.25 * noise * truth.mean((1, 2, 3)) / truth.shape[1] + 1e-6
    errors = [((((x.float() - truth) ** 2).mean((1, 2, 3))) / rival).sqrt().mean() for x in estimates]
    return torch.stack([w * e for w, e in zip(STAGE_WEIGHTS[-len(errors) :], errors, strict=True)]).sum()


def train(spec: TrainSpec, out: Path) -> Run:
    """Train into the folder `out` until the budget is spent, from its checkpoint if there is one."""
    out.mkdir(parents=True, exist_ok=True)
    run = Run(spec)
    if (out / CHECKPOINT).exists():
        run.restore(read_checkpoint(out))
    with prefetched(spec.data, run.step, spec.workers) as batches:
        began = time.monotonic() - 60 * run.minutes
        while run.progress < 1:
            losses = _until_checkpoint(run, batches, began)
            write_checkpoint(out, run.state())
            _log(run, losses, out / "log.jsonl")
    return run


def _until_checkpoint(run: Run, batches: Iterator[Batch], began: float) -> list[float]:
    """Learn until a checkpoint is due or the budget is spent; `began` is when the first step would have been without pauses."""
    due, losses = run.minutes + run.spec.checkpoint_minutes, list[float]()
    while run.progress < 1 and run.minutes < due:
        losses.append(run.learn(next(batches)))
        run.minutes = (time.monotonic() - began) / 60
    return losses


def _log(run: Run, losses: list[float], path: Path) -> None:
    """Append a line: mean of the last losses, and scores on small crops of movies not trained on."""
    recent = losses[-200:]
    line = {"step": run.step, "minutes": round(run.minutes, 2), "loss": round(sum(recent) / max(len(recent), 1), 4)}
    if run.spec.scored:
        rows = [row for name, clip in clips(run.spec.net.ratio, 192, 2, 4) for row in score(of_net(run.net), name, clip)]
        line |= {f"{row.data} {row.dose:g} e-/px {row.method}, dB": row.psnr_db for row in summary(rows)}
    with path.open("a") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m framefold_training.train", description=__doc__)
    parser.add_argument("--ratio", type=int, default=20, help="frames per snapshot")
    parser.add_argument("--minutes", type=float, default=50.0, help="training time, over all resumptions")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--workers", type=int, default=1, help="processes that make the batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    given = parser.parse_args(arguments)
    net, data = NetSpec(ratio=given.ratio), DataSpec(ratio=given.ratio, batch=given.batch, seed=given.seed)
    train(TrainSpec(minutes=given.minutes, device=given.device, workers=given.workers, net=net, data=data), given.out)


if __name__ == "__main__":
    try:
        main()
    except FramefoldError as error:
        raise SystemExit(f"error: {error}") from None
