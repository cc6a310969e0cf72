"""Trajectory distillation (FLUX-IR, arXiv 2410.04811): a student that walks a teacher's trajectory in a few large steps."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...fluxir_core.flow.exploration import trajectory
from ...fluxir_core.flow.rectified_flow import euler, interpolate
from ..data.batch import Batch
from ..engine.checked_files import read_or_none, write_checked
from ..engine.draws import Draws
from ..engine.fit import Objective
from ..engine.run_folder import check_identity
from .reinforce import call, prepare_condition

PLAIN = 4
"""Plain flow matching is learned from every so many-th image."""


@dataclass(frozen=True)
class DistillRecipe:
    """`lessons` batches of teacher trajectories, made once and then seen in turn. `schedules` are "optimal", those of the teacher's
    file, or "uniform", as many equal steps from pure noise: the control. `guidance` is the guidance embedding.

    `middle`, `end`, `truth` and `flow` weigh the losses of StudentObjective; official's 100 : 300 : 300, scaled. `noise_tone` as
    FluxIRRecipe's.
    """

    lessons: int = 96
    schedules: str = "optimal"
    middle: float = 1.0
    end: float = 3.0
    truth: float = 3.0
    flow: float = 0.01
    guidance: float = 4.0
    noise_tone: float = 0.0

    def __post_init__(self):
        if self.lessons < 1:
            raise ValueError(f"recipe: lessons is {self.lessons}; use 1 or more.")
        if self.schedules not in ("optimal", "uniform"):
            raise ValueError(f"recipe: schedules is {self.schedules!r}; use 'optimal' or 'uniform'.")


@dataclass
class Lesson(Batch):
    """A Batch with the `noise` z_1 of its trajectories (B, N, 64), the teacher's states there by time, {t: (B, N, 64)}, 0 the end,
    the images' `weights` (B,), and the `sigmas` that the student walks."""

    noise: torch.Tensor
    states: dict
    weights: torch.Tensor
    sigmas: list


class Lessons:
    """The teacher's trajectories, one file a batch in `folder`, as batches for `fit`: lesson by lesson, the schedules in turn.

    `schedules` is {steps: sigmas}; of every trajectory the states at their times are kept, in half precision. A lesson's next time
    is for another schedule.
    """

    validation = ()

    def __init__(self, folder, schedules, count, batches, device="cpu"):
        self.folder, self.schedules, self.count, self.device = Path(folder), schedules, count, device
        self.turns, self.rows_of, self.description = sorted(schedules), batches.rows, batches.description
        self._read = None, None

    @torch.no_grad()
    def make(
        self,
        host,
        batches,
        grid,
        guidance,
        noise_tone=0.0,
        micro_batch=8,
        seed=0,
        identity=None,
        process=0,
        processes=1,
        autocast=None,
    ):
        """Makes the lessons that are not there yet, of which every process takes its share.

        Args:
            host: the teacher, a FluxIRHost or UMMFHost.
            batches: as for `fit`; a lesson is the batch of the step of its number.
            grid: sigmas (S + 1,), falling, along which the teacher walks; they hold all times of the schedules.
            guidance: the teacher's, a number.
            noise_tone: as FluxIRRecipe's; 0 for none.
            micro_batch: images at a time.
            seed: of the noise.
            identity: a dict of plain values, what else the lessons depend on, such as the teacher; None for {}.
            process, processes: the number of this process, from 0, and of all.
            autocast: dtype that the teacher computes in, or None for full precision.

        Raises:
            ValueError: the folder holds lessons of another run, or a schedule has a time that the grid has not.
        """
        kept = sorted({t for sigmas in self.schedules.values() for t in sigmas[1:]}, reverse=True)
        places = [min(range(len(grid)), key=lambda i, t=t: abs(grid[i].item() - t)) for t in kept]
        for t, place in zip(kept, places):
            if abs(grid[place].item() - t) > 1e-4:
                raise ValueError(
                    f"the time {t:.4g} of a schedule is none of the teacher's {len(grid) - 1} steps; use other schedules."
                )
        identity = {**(identity or {}), "schedules": kept}
        for number in range(process, self.count, processes):
            saved = read_or_none(self._path(number))
            if saved:
                check_identity(saved["identity"], identity, self.folder)
                continue
            rows, parts = range(batches.rows(number)), []
            for first in range(0, len(rows), micro_batch):
                part = rows[first : first + micro_batch]
                batch, noise = batches(number, part), Draws(seed, number, part, self.device)
                noise = noise.noise(batch.clean.shape[1:], noise_tone)
                with torch.autocast(torch.device(self.device).type, autocast, enabled=autocast is not None):
                    states = _walk_all(host, batch, noise, grid, guidance)[places]
                parts.append({**_fields(batch), "noise": noise, "states": states.transpose(0, 1).half()})
            lesson = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
            for name in ("text", "pooled"):  # T5's are large, and mostly the same
                alike = bool((lesson[name] == lesson[name][:1]).all())
                lesson[name] = lesson[name][: 1 if alike else None].half()
            lesson["weights"] = fair_weights(lesson["states"][:, -1].float(), lesson["clean"])
            shared = {"image_ids": batch.image_ids.cpu(), "grid": list(batch.grid), "rows": len(rows)}
            whole = {"identity": identity, "lesson": lesson, **shared}
            write_checked(self._path(number), whole)
            logging.info("lesson %d of %d is made", number + 1, self.count)

    def rows(self, step):
        """How many images step `step` sees."""
        return self.rows_of(step % self.count)

    def __call__(self, step, rows):
        """The Lesson of the images at `rows` of step `step`."""
        time, number = divmod(step, self.count)
        if self._read[0] != number:
            self._read = number, read_or_none(self._path(number))
        saved = self._read[1]
        if saved is None:
            raise ValueError(f"{self._path(number)} is missing; run the same command again, it makes the lessons anew.")
        lesson = {name: value.float().expand(saved["rows"], *value.shape[1:]) for name, value in saved["lesson"].items()}
        own = {name: value[rows.start : rows.stop].to(self.device) for name, value in lesson.items()}
        times, sigmas = saved["identity"]["schedules"], self.schedules[self.turns[(number + time) % len(self.turns)]]
        states = dict(zip(times, own.pop("states").unbind(1)))
        return Lesson(**own, image_ids=saved["image_ids"].to(self.device), grid=tuple(saved["grid"]), states=states, sigmas=sigmas)

    def _path(self, number):
        return self.folder / f"lesson-{number:05d}.pt"


class StudentObjective(Objective):
    """Trains the `lora` of `host` (a LoRAHost, everything else frozen) on the schedules of its Lessons.

    From the noised degraded latent
        z_ts = (1 - ts) z_LQ + ts z_1
    it takes the schedule's steps z' = z - (t - t') v(z, t), with the gradient through the whole chain, and is compared with
    the teacher's trajectory z* from the same noise, and with the truth:
        middle mean_k |z_k - z*_k|^2 + end |z_0 - z*_0|^2 + truth |z_0 - z_gt|^2 + flow L_FM.
    Each image's errors are weighed by `fair_weights`, so that mild degradations count as much as heavy ones. L_FM is plain flow
    matching on every PLAIN-th image.
    """

    def __init__(self, host, recipe):
        super().__init__(host, host.lora)
        self.recipe, self.guidance = recipe, recipe.guidance

    def losses(self, batch, draws):
        recipe, zero = self.recipe, batch.clean.new_zeros(())
        walked = walk(self.host, batch, batch.noise, batch.sigmas, self.guidance)
        wanted = [batch.states[s] for s in batch.sigmas[1:]]
        between = [(batch.weights * errors(z, own)).mean() for z, own in zip(walked[:-1], wanted[:-1])]
        middle = torch.stack(between).mean() if between else zero
        end, truth = ((batch.weights * errors(walked[-1], own)).mean() for own in (wanted[-1], batch.clean))
        flow = self._plain(batch, draws)
        loss = recipe.middle * middle + recipe.end * end + recipe.truth * truth + recipe.flow * flow
        return {"loss": loss, "middle": middle, "end": end, "truth": truth, "flow": flow}

    def _plain(self, batch, draws):
        t = draws.each(lambda own: torch.rand(1, generator=own)) * batch.sigmas[0]
        chosen = [i for i, row in enumerate(draws.rows) if row % PLAIN == 0]
        if not chosen:
            return batch.clean.new_zeros(())
        part = Batch(**{name: value[chosen] for name, value in _fields(batch).items()}, image_ids=batch.image_ids, grid=batch.grid)
        z_t = interpolate(part.clean, batch.noise[chosen], t[chosen])
        plain = call(self.host, part, z_t, t[chosen], self.guidance).float()
        return F.mse_loss(plain, batch.noise[chosen] - part.clean) * (len(chosen) * PLAIN / len(draws.rows))


def _fields(batch):
    return {name: getattr(batch, name) for name in ("clean", "degraded", "text", "pooled")}


def errors(found, wanted):
    """The mean square error of each image, (B, N, 64) twice -> (B,)."""
    return (found - wanted).square().flatten(1).mean(1)


def fair_weights(taught, clean):
    """Weights (B,) of mean 1, the inverse of the teacher's own errors: with them a loss follows the mean PSNR, in which every
    image counts alike, instead of the images that hardly anything can be told of. Errors below a tenth of their mean
    count as that."""
    own = errors(taught, clean)
    weights = 1 / own.clamp(min=own.mean() / 10)
    return weights / weights.mean()


def walk(host, batch, noise, sigmas, guidance):
    """Walks from the noised degraded latents along a schedule.

    Args:
        host: FluxIRHost, UMMFHost or LoRAHost.
        batch: Batch.
        noise: z_1, (B, N, 64).
        sigmas: S + 1 numbers, falling.
        guidance: a number.

    Returns:
        The states after each step, a list of S tensors (B, N, 64).
    """
    velocity, walked = _velocity(host, batch, guidance), []
    if torch.is_grad_enabled() and getattr(host.transformer, "gradient_checkpointing", False):
        # The host runs its blocks again for its latest call alone, so each call of the chain is run again as a whole.
        velocity = partial(checkpoint, velocity, use_reentrant=False)
    start = interpolate(batch.degraded, noise, noise.new_full((len(noise),), sigmas[0]))
    euler(velocity, start, noise.new_tensor(sigmas), lambda _step, x: walked.append(x))
    return walked


def _walk_all(host, batch, noise, grid, guidance):
    return trajectory(_velocity(host, batch, guidance), noise, grid)[0]


def _velocity(host, batch, guidance):
    condition = prepare_condition(host, batch, 1)
    strength = batch.clean.new_full((len(batch.clean),), guidance)
    return lambda x, t: host.velocity(x, t, condition, strength).float()
