"""The training loop: every recipe is an objective that it runs."""

import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from .average import MovingAverage
from .checked_files import misfit
from .draws import Draws
from .processes import any_process, is_sharded, load_optimizer, local, sharded_like, whole
from .progress import Progress
from .run_folder import RunFolder, check_identity
from .stopping import Stopped, StopSignal


@dataclass(frozen=True)
class RunConfig:
    """How long and how wide a run is. None of it but `steps`, `batch` and `seed` changes what is learned.

    `batch` images make a step, over all processes; `micro_batch` of them pass the model at once. `sharding` is "ddp" or
    "fsdp". A checkpoint is written every `checkpoint_every` steps and the latest `keep` stay; `validate_every` steps the
    held-out images are restored (0: never).
    """

    steps: int
    batch: int
    micro_batch: int = 1
    seed: int = 0
    sharding: str = "ddp"
    checkpoint_every: int = 500
    keep: int = 2
    validate_every: int = 0

    def __post_init__(self):
        if self.sharding not in ("ddp", "fsdp"):
            raise ValueError(f"run: sharding is {self.sharding!r}; use 'ddp' or 'fsdp'.")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"run: seed is {self.seed}; use a whole number from 0 to 2**64 - 1.")
        for name in ("steps", "batch", "micro_batch", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"run: {name} is {getattr(self, name)}; use 1 or more.")


class Objective(torch.nn.Module):
    """What a recipe trains: the `adapter` of `host` on its frozen transformer.

    `forward(batch, draws)` gives named losses, tensors of one value, of which "loss" is differentiated; `draws` is the
    batch's Draws. `forward(batch, draws, sigmas)` instead restores the batch with Euler steps on `sigmas` (n + 1,): tokens
    (B, N, 64). Both are one method because DDP and FSDP see nothing but `forward`.
    """

    guidance = 1.0
    stateful: Mapping = {}
    """What a step changes beside the adapter, by name: objects with `state_dict` and `load_state_dict`, kept in checkpoints."""

    def __init__(self, host, adapter=None):
        super().__init__()
        self.host, self.adapter, self.transformer = host, adapter or host.adapter, host.transformer

    def begin(self, step):
        """Called before each step, with the adapter's weights as they are then."""

    def forward(self, batch, draws, sigmas=None):
        return self.losses(batch, draws) if sigmas is None else self.restore(batch, draws, sigmas)

    def losses(self, batch, draws):
        raise NotImplementedError

    @torch.no_grad()
    def restore(self, batch, draws, sigmas):
        x, guidance = draws.normal(batch.clean.shape[1:]), torch.full((len(batch.clean),), self.guidance, device=draws.device)
        condition = self.host.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        for now, after in zip(sigmas[:-1], sigmas[1:]):
            velocity = self.host.velocity(x, torch.full_like(guidance, now), condition, guidance)
            x = x + (after - now) * velocity.float()
        return x


def fit(objective, batches, optimizer_config, run, folder, accelerator, validate=None, identity=None, description=None):
    """Trains an objective's adapter, resuming from the checkpoints in a folder.

    Args:
        objective: Objective.
        batches: `batches.rows(step)` says how many images a step sees, and `batches(step, rows)` gives those at these places of it.
        optimizer_config: OptimizerConfig.
        run: RunConfig.
        folder: of the checkpoints; it is made where it is missing.
        accelerator: of this process, see `make_accelerator`.
        validate: `validate(model, step, stopping)` is called with the averaged weights in place and returns values to log; it ends
            early where `stopping()` says so, and `validate.lacks(step)` says whether it was not yet called to its end. None for no
            validation.
        identity: a dict of plain values, what makes two runs one: a folder with checkpoints of another is refused. None for {}.
        description: a dict that is kept in every checkpoint beside it; None for {}.

    Returns:
        The averaged adapter's whole state dict, on the CPU.

    Raises:
        Stopped: after SIGTERM or Ctrl-C.
        ValueError: the loss or the gradients are no longer finite, a batch does not divide among the processes, or the folder
            belongs to another run.
    """
    folder = RunFolder(folder, run.keep)
    names = [name for name, parameter in objective.adapter.named_parameters() if parameter.requires_grad]
    by_name = dict(objective.adapter.named_parameters())
    model, optimizer = accelerator.prepare(objective, optimizer_config.make([by_name[name] for name in names]))
    adapter = accelerator.unwrap_model(model).adapter.train()
    by_name = dict(adapter.named_parameters())
    parameters = [by_name[name] for name in names]
    average = MovingAverage(parameters, optimizer_config.average)

    described = {"identity": identity or {}, "description": description or {}}
    changed = {"average": average, **accelerator.unwrap_model(model).stateful}
    start = _resume(folder, described["identity"], adapter, parameters, changed, optimizer)
    shown = None if accelerator.is_main_process else False
    with StopSignal() as stop, Progress(run.steps, start, shown) as progress:

        def asked():
            return any_process(accelerator, stop.asked)

        if validate and start:  # the run before may have been stopped between its checkpoint and this
            _validate(validate, run, start, model, adapter, average, accelerator, asked)
        for step in range(start, run.steps):
            accelerator.unwrap_model(model).begin(step)
            losses = _accumulate(model, batches, run, step, accelerator)
            norm = accelerator.clip_grad_norm_(parameters, optimizer_config.clip)
            losses["gradient_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
            if any_process(accelerator, not all(map(math.isfinite, losses.values()))):
                raise ValueError(_not_finite(losses, step, folder))
            for group in optimizer.param_groups:
                group["lr"] = optimizer_config.learning_rate_at(step, run.steps)
            optimizer.step()
            optimizer.zero_grad()
            average.update()

            done = step + 1
            _log(accelerator, losses, optimizer, step)
            progress.step(batches.rows(step), losses["loss"])
            saved = done % run.checkpoint_every == 0 or done == run.steps or asked()
            if saved:
                _save(folder, done, adapter, changed, optimizer, described, accelerator)
                progress.checkpoint(done)
            if validate:
                _validate(validate, run, done, model, adapter, average, accelerator, asked)
            if asked() and done < run.steps:
                if not saved:
                    _save(folder, done, adapter, changed, optimizer, described, accelerator)
                raise Stopped(done, run.steps)
    average.apply()
    return whole(adapter.state_dict())


def _validate(validate, run, done, model, adapter, average, accelerator, stopping):
    """Restores the held-out images with the averaged weights, where that is due after `done` steps and not done yet."""
    if not run.validate_every or (done % run.validate_every and done != run.steps):
        return
    if stopping() or not any_process(accelerator, accelerator.is_main_process and validate.lacks(done)):
        return
    adapter.eval()
    with average.applied(), torch.no_grad(), accelerator.autocast():
        accelerator.log(validate(model, done, stopping), step=done)
    adapter.train()


def _accumulate(model, batches, run, step, accelerator):
    """The gradients of step `step` over its whole batch, a micro-batch at a time. Returns the losses' means, as numbers."""
    total, processes = batches.rows(step), accelerator.num_processes
    if total % processes:
        raise ValueError(f"run: a batch of {total} does not divide among {processes} processes; use a multiple of {processes}.")
    own = range(total)[accelerator.process_index * total // processes :][: total // processes]
    parts = [own[i : i + run.micro_batch] for i in range(0, len(own), run.micro_batch)]
    sums = {}
    for i, rows in enumerate(parts):
        batch, draws = batches(step, rows), Draws(run.seed, step, rows, accelerator.device)
        with nullcontext() if i + 1 == len(parts) else accelerator.no_sync(model):
            with accelerator.autocast():
                losses = model(batch, draws)
            accelerator.backward(losses["loss"] * (len(rows) / len(own)))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float() * (len(rows) / len(own))
    means = accelerator.reduce(sums, "mean")
    return {name: value.item() for name, value in means.items()}


def _save(folder, step, adapter, changed, optimizer, described, accelerator):
    if accelerator.is_main_process or is_sharded(adapter):  # every process gives its shards
        state = whole(
            {
                "step": step,
                **described,
                "adapter": adapter.state_dict(),
                **{name: own.state_dict() for name, own in changed.items()},
                "optimizer": optimizer.state_dict(),
            }
        )
    if accelerator.is_main_process:
        folder.save(step, state)
    accelerator.wait_for_everyone()


def _resume(folder, identity, adapter, parameters, changed, optimizer):
    """Loads the latest checkpoint of `folder` into what a step changes. Returns the step it was written after, 0 without one."""
    own = {"adapter": adapter.state_dict(), **{name: part.state_dict() for name, part in changed.items()}}

    def unusable(state):
        lacking = {"step", "identity", "optimizer", *own} - state.keys()
        if lacking:
            return f"it lacks {', '.join(sorted(lacking))}"
        check_identity(state["identity"], identity, folder.folder)
        return misfit(state, own)

    saved = folder.load(misfit=unusable)
    if saved is None:
        return 0
    with torch.no_grad():
        for name, value in adapter.state_dict().items():
            local(value).copy_(local(sharded_like(saved["adapter"][name], value)))
    for name, part in changed.items():
        state = saved[name]
        if "values" in state:  # weights beside the adapter's
            state = {**state, "values": [sharded_like(value, like) for value, like in zip(state["values"], parameters)]}
        part.load_state_dict(state)
    load_optimizer(optimizer, saved["optimizer"], parameters)
    return saved["step"]


def _not_finite(losses, step, folder):
    steps = folder.steps()
    good = f"the last good checkpoint is {folder.path(steps[-1])}" if steps else "no checkpoint was written yet"
    values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return f"step {step}: the loss or its gradients are not finite ({values}); {good}; lower the learning rate, or use bf16."


def _log(accelerator, losses, optimizer, step):
    group = optimizer.param_groups[0]
    values = {**losses, "learning_rate": group["lr"] * group.get("d", 1.0)}
    accelerator.log(values, step=step)
    if step % 50 == 0 and accelerator.is_main_process:
        logging.info("step %d %s", step, " ".join(f"{name} {value:.4g}" for name, value in values.items()))
