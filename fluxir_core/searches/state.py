"""What every search works with: the task's functions, counted and logged."""

import torch

from ..flow.kernels import ODE
from ..flow.noise import keyed_generator, keyed_noise
from ..verify.artist import verifiers_scores
from .selectors import take
from .task import Round, ScoredCandidates


class SearchState:
    """One search in progress: counts model calls and verifications an image, draws keyed noise, keeps the log."""

    def __init__(self, task, noise, sigmas, seed, keys):
        self.task, self.baseline_noise, self.seed, self.keys = task, noise, seed, keys
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.steps = len(self.sigmas) - 1
        self.nfe = self.verifications = self.student_calls = 0
        self.log = []
        self.best_so_far = None

    def velocity(self, x, t):
        """v (n, B, ...) at x (n, B, ...) and t (n, B)."""
        self.nfe += len(x)
        return self.task.velocity(x.flatten(0, 1), t.flatten()).unflatten(0, x.shape[:2])

    def start(self, noise):
        """The states (n, B, ...) at the first sigma that `noise` (n, B, ...) begins as."""
        return noise if self.task.start is None else self.task.start(noise.flatten(0, 1)).unflatten(0, noise.shape[:2])

    def times(self, x, index):
        """The grid time `index` for every member of x (n, B, ...): (n, B)."""
        return torch.full(x.shape[:2], self.sigmas[index], device=x.device)

    def noises(self, count, *key, first=0):
        """Fresh noise (count, B, ...) for `key` and the candidates from `first` on."""
        shape = self.baseline_noise.shape[1:]
        drawn = [
            torch.stack([keyed_noise(shape, self.seed, image, *key, first + candidate) for image in self.keys])
            for candidate in range(count)
        ]
        return torch.stack(drawn).to(self.baseline_noise) if drawn else self.baseline_noise.new_zeros(0, *self.baseline_noise.shape)

    def initial_noises(self, count):
        """The baseline's noise, and count - 1 others: (count, B, ...)."""
        return torch.cat([self.baseline_noise[None], self.noises(count - 1, "start", first=1)])

    def generators(self, *key):
        """One generator an image for the choices of `key`."""
        return [keyed_generator(self.seed, image, *key) for image in self.keys]

    def score_latents(self, latents, decode=None):
        """Decodes and scores clean latents (n, B, ...)."""
        self.verifications += len(latents)
        images = (decode or self.task.decode)(latents.flatten(0, 1))
        scores = self.task.score(images)
        bad = {name: tuple(values.shape) for name, values in scores.items() if values.shape != (len(images),)}
        if bad:
            raise ValueError(f"the verifiers gave scores of shapes {bad} for {len(images)} images; give one an image.")
        sizes = latents.shape[:2]
        scores = {name: values.detach().float().cpu().unflatten(0, sizes) for name, values in scores.items()}
        return ScoredCandidates(scores, images.unflatten(0, sizes), latents)

    def values(self, scored):
        """One value (n, B) a candidate; NaN counts as refused, -inf. Without any score all are alike."""
        if not scored.scores:
            return torch.zeros(scored.latents.shape[:2])
        values = self.task.combine(scored.scores)
        return values.masked_fill(values.isnan(), -torch.inf)

    def held_out(self, images):
        """Scores {verifier: (B,)} of images (B, 3, H, W) by the verifiers that the search does not see."""
        found = self.task.held_out(images) if self.task.held_out else {}
        return {name: scores.detach().float().cpu() for name, scores in found.items()}

    def decide(self, step, scored, values, chosen, **more):
        """Logs a cohort and what survives of it; the best of that is the best so far.

        Args:
            step: grid index of the round.
            scored: the cohort's ScoredCandidates, n for each of B images.
            values: (n, B), higher is better.
            chosen: indices of the survivors, (m, B).
            more: further entries of the log, as JSON takes them.
        """
        best = take(values, chosen).argmax(0, keepdim=True)
        best = take(chosen, best)
        self.best_so_far = take(scored.latents, best)[0]
        entry = {"step": step, "sigma": self.sigmas[step], "nfe": self.nfe, "verifications": self.verifications, **more}
        entry |= {"values": to_json(values), "chosen": chosen.T.tolist()}
        entry["scores"] = scores_to_json(scored)
        held_out = self.held_out(take(scored.images, best.to(scored.images.device))[0])
        entry["held_out"] = {name: to_json(scores[None]) for name, scores in held_out.items()}
        self.log.append(entry)
        if self.task.watch:
            self.task.watch(Round(step, scored.images, values, chosen))


def to_json(values):
    """(n, B) scores as a list of B lists for JSON: rounded, None for NaN and infinities."""
    return [[round(v, 6) if abs(v) < float("inf") else None for v in row] for row in values.T.tolist()]


def scores_to_json(scored):
    """{verifier: its scores by `to_json`} of ScoredCandidates."""
    return {name: to_json(scores) for name, scores in verifiers_scores(scored.scores).items()}


def finish_baseline(state, x, v, step):
    """Takes the baseline from a state in the middle of the grid to the end, by the ODE.

    Args:
        state: SearchState.
        x: the baseline there, (1, B, ...).
        v: its velocity there, (1, B, ...).
        step: the grid index of both.

    Returns:
        The clean latents, (1, B, ...).
    """
    for here in range(step, state.steps):
        if here > step:
            v = state.velocity(x, state.times(x, here))
        x, _ = ODE()(x, v, state.sigmas[here], state.sigmas[here + 1])
    return x
