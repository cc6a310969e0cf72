"""Trajectory distillation (FLUX-IR, arXiv 2410.04811): a student that walks a teacher's trajectory in a few large steps."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ...fluxir_core.flow.exploration import trajectory
from ...fluxir_core.flow.rectified_flow import euler, interpolate
from ..engine.average import MovingAverage
from ..engine.checked_files import read_or_none, write_checked
from ..engine.run_folder import check_identity
from .reinforce import call, prepare_condition


@dataclass(frozen=True)
class DistillRecipe:
    """`lessons` batches of teacher trajectories, made once and then seen in turn for `steps` steps.

    `middle`, `end`, `truth` and `flow` weigh the losses of `train_student`; official's 100 : 300 : 300, scaled.
    """

    steps: int
    lessons: int
    learning_rate: float
    guidance: float
    middle: float = 1.0
    end: float = 3.0
    truth: float = 3.0
    flow: float = 0.01
    average: float = 0.99


class Lesson(NamedTuple):
    """A batch, the noise z_1 of its trajectories, and the teacher's states there by time: {t: (B, N, 64)}, 0 the end."""

    batch: object
    noise: torch.Tensor
    states: dict


@torch.no_grad()
def make_lessons(host, batches, schedules, grid, recipe, path, autocast=torch.bfloat16, seed=0, identity=None):
    """The teacher's trajectories along the sigmas `grid` for `recipe.lessons` batches, made once and kept in the file `path`.

    Of every trajectory the states at the times of `schedules` ({steps: sigmas}, all of them in `grid`) are kept, in half
    precision. `identity` (a dict of plain values) says what else they depend on, such as the teacher. Returns a list of
    Lessons, their batches drawn again by the same `seed`. Raises ValueError where `path` holds those of another run.
    """
    torch.manual_seed(seed)
    kept = sorted({t for sigmas in schedules.values() for t in sigmas[1:]}, reverse=True)
    places = [min(range(len(grid)), key=lambda i, t=t: abs(grid[i].item() - t)) for t in kept]
    drawn = [(batch := batches(step), torch.randn_like(batch.clean)) for step in range(recipe.lessons)]
    identity = {**(identity or {}), "schedules": kept}
    saved = read_or_none(path) or {"identity": identity, "states": []}
    check_identity(saved.get("identity", {}), identity, path)
    for number in range(len(saved["states"]), len(drawn)):
        batch, noise = drawn[number]
        with torch.autocast(noise.device.type, dtype=autocast or torch.float32, enabled=autocast is not None):
            condition, guidance = prepare_condition(host, batch, 1), noise.new_full((len(noise),), recipe.guidance)
            states, _ = trajectory(lambda x, t: host.velocity(x, t, condition, guidance).float(), noise, grid)
        saved["states"].append(states[places].half().cpu())
        if number % 8 == 7 or number + 1 == len(drawn):
            write_checked(path, saved)
            logging.info("distill: %d of %d lessons", number + 1, len(drawn))
    return [
        Lesson(batch, noise, dict(zip(kept, states.to(noise.device)))) for (batch, noise), states in zip(drawn, saved["states"])
    ]


def train_student(host, lessons, schedules, recipe, checkpoint, autocast=torch.bfloat16, seed=0):
    """Trains the `lora` of `host` (a LoRAHost, everything else frozen) on `schedules`; returns it with averaged weights.

    One student for all schedules ({steps: sigmas}), which take turns. From the noised degraded latent
        z_ts = (1 - ts) z_LQ + ts z_1
    it takes the schedule's steps z' = z - (t - t') v(z, t), with the gradient through the whole chain, and is compared with
    the teacher's trajectory z* from the same noise, and with the truth:
        middle mean_k |z_k - z*_k|^2 + end |z_0 - z*_0|^2 + truth |z_0 - z_gt|^2 + flow L_FM.
    Each image's errors are weighed by `fair_weights`, so that mild degradations count as much as heavy ones. L_FM is plain flow
    matching on a quarter of the batch.
    """
    torch.manual_seed(seed)
    lora, turns = host.lora.train(), sorted(schedules)
    parameters = list(lora.parameters())
    average = MovingAverage(parameters, recipe.average)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)

    for step in checkpoint.steps(recipe.steps, lora, average, optimizer):
        time, lesson = divmod(step, len(lessons))
        batch, noise, states = lessons[lesson]
        sigmas = schedules[turns[(lesson + time) % len(turns)]]  # a lesson's next time is for another schedule
        few = max(1, len(noise) // 4)
        t = torch.rand(few, device=noise.device) * sigmas[0]
        with torch.autocast(noise.device.type, dtype=autocast or torch.float32, enabled=autocast is not None):
            walked = walk(host, batch, noise, sigmas, recipe.guidance)
            part = first(batch, few)
            z_t = interpolate(part.clean, noise[:few], t)
            plain = call(host, part, z_t, t, recipe.guidance).float()
        teacher, weights = [states[s].float() for s in sigmas[1:]], fair_weights(states[0.0].float(), batch.clean)
        between = [(weights * errors(z, wanted)).mean() for z, wanted in zip(walked[:-1], teacher[:-1])]
        middle = torch.stack(between).mean() if between else torch.zeros((), device=noise.device)
        end, truth = ((weights * errors(walked[-1], wanted)).mean() for wanted in (teacher[-1], batch.clean))
        flow = F.mse_loss(plain, noise[:few] - part.clean)
        loss = recipe.middle * middle + recipe.end * end + recipe.truth * truth + recipe.flow * flow

        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / 20, 2.5 * (1 - step / recipe.steps))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        if step % 20 == 0:
            logging.info(
                "distill step %d (%d steps) loss %.4f end %.4f truth %.4f",
                step,
                len(sigmas) - 1,
                loss.item(),
                end.item(),
                truth.item(),
            )
    average.apply()
    return lora.eval()


def errors(found, wanted):
    """The mean square error of each image, (B, N, 64) twice -> (B,)."""
    return (found - wanted).square().flatten(1).mean(1)


def fair_weights(teacher, clean):
    """Weights (B,) of mean 1, the inverse of the teacher's own errors: with them a loss follows the mean PSNR, in which every
    image counts alike, instead of the images that hardly anything can be told of. Errors below a tenth of their mean
    count as that."""
    own = errors(teacher, clean)
    weights = 1 / own.clamp(min=own.mean() / 10)
    return weights / weights.mean()


def walk(host, batch, noise, sigmas, guidance):
    """The states after each step of `sigmas` from the noised degraded latents: a list of (B, N, 64)."""
    condition, strength = prepare_condition(host, batch, 1), noise.new_full((len(noise),), guidance)
    start = interpolate(batch.degraded, noise, noise.new_full((len(noise),), sigmas[0]))
    walked = []
    euler(
        lambda x, t: host.velocity(x, t, condition, strength).float(),
        start,
        noise.new_tensor(sigmas),
        lambda _step, x: walked.append(x),
    )
    return walked


def first(batch, count):
    """The first `count` images of `batch`."""
    parts = {name: getattr(batch, name)[:count] for name in ("clean", "degraded", "text", "pooled")}
    return type(batch)(**parts, image_ids=batch.image_ids, grid=batch.grid)
