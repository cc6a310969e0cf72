"""FLUX-IR's recipes on a flow whose velocity is known: reinforcement raises the reward, the student learns the few steps."""

import math

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.exploration import trajectory
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids
from comfyui_fluxir.training.data.batch import Batch
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint
from comfyui_fluxir.training.recipes.distill import DistillRecipe, fair_weights, make_lessons, train_student, walk
from comfyui_fluxir.training.recipes.few_step_schedules import choose, measure_jumps, uniform_schedules
from comfyui_fluxir.training.recipes.reinforce import (
    ReinforceRecipe,
    closeness,
    explore,
    prepare_condition,
    reward_of_verifier,
    train_reinforced,
)

SPREAD = 0.6
GRID = flux_sigmas(16, shift=0)


class Spread(torch.nn.Module):
    """What is learnt: how far clean latents lie around the degraded one."""

    def __init__(self):
        super().__init__()
        self.log = torch.nn.Parameter(torch.tensor(math.log(SPREAD)))


class Change(torch.nn.Module):
    """What a student may change: the velocity by a share of the state and of the degraded latent."""

    def __init__(self):
        super().__init__()
        self.state, self.degraded = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))


class Host:
    """Clean latents are the degraded one plus N(0, SPREAD^2); the velocity is exact for the adapter's idea of it."""

    def __init__(self):
        self.adapter, self.lora, self.calls = Spread(), Change(), 0

    def prepare(self, degraded, text, pooled, image_ids):
        return degraded

    def velocity(self, x, t, degraded, guidance):
        self.calls += 1
        t, variance = t.clamp(min=1e-3)[:, None, None], self.adapter.log.exp() ** 2
        gain = (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)
        clean = degraded + gain * (x - (1 - t) * degraded)
        return (x - clean) / t + self.lora.state * x + self.lora.degraded * degraded


def batches(step, count=4):
    draw = torch.Generator().manual_seed(100 + step)
    degraded = torch.randn(count, 4, 64, generator=draw)
    clean = degraded + SPREAD * torch.randn(count, 4, 64, generator=draw)
    return Batch(clean, degraded, torch.zeros(count, 2, 8), torch.zeros(count, 4), image_ids(4, 4), (4, 4))


@torch.no_grad()
def sampled_psnr(host, steps=8):
    batch = batches(999, 64)
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(1))
    states, _ = trajectory(lambda x, t: host.velocity(x, t, batch.degraded, None), noise, flux_sigmas(steps))
    return closeness(states[-1], batch).mean().item()


def reinforcement(**options):
    return ReinforceRecipe(**{"steps": 40, "learning_rate": 2e-2, "guidance": 4.0, "rollout_steps": 6, **options})


def test_reinforcement_brings_the_odes_ends_nearer_to_the_truth(tmp_path):
    host = Host()
    before = sampled_psnr(host)
    train_reinforced(host, batches, reinforcement(), Checkpoint(tmp_path / "a.pt"), autocast=None)
    assert sampled_psnr(host) > before + 0.1


def test_the_first_rollout_is_the_odes_and_the_best_has_the_highest_reward():
    host, batch, noise = Host(), batches(0), torch.randn(4, 4, 64)
    sigmas = flux_sigmas(6)
    states, rewards, best = explore(host, batch, noise, sigmas, reinforcement(rollouts=5, spread=0.5), closeness)
    assert states.shape == (7, 5, 4, 4, 64) and rewards.shape == (5, 4)
    ode, _ = trajectory(lambda x, t: host.velocity(x, t, batch.degraded, None), noise, sigmas)
    torch.testing.assert_close(states[:, 0], ode, rtol=1e-4, atol=1e-5)
    assert (states[0] == noise).all() and (states[-1, 1:] - ode[-1]).abs().mean() > 0.01
    assert torch.equal(rewards.gather(0, best[None])[0], rewards.amax(0))
    torch.testing.assert_close(rewards[2, 1], closeness(states[-1, 2], batch)[1])


def test_any_verifier_can_be_the_reward(tmp_path):
    host = Host()

    def narrow(latents, batch):  # a verifier that likes results close to the input
        return -(latents - batch.degraded).square().flatten(1).mean(1)

    train_reinforced(host, batches, reinforcement(pull=0.0, flow=0.0, spread=0.6), Checkpoint(tmp_path / "a.pt"), narrow, None)
    assert host.adapter.log.exp().item() < SPREAD - 0.02


def test_a_verifier_judges_decoded_images_in_full_precision():
    seen, batch = [], batches(0)

    def judge(images):
        seen.append((images @ images.mT).dtype)
        return images.flatten(1).mean(1)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = reward_of_verifier(judge, lambda latents: 2 * latents)(batch.clean, batch)
    torch.testing.assert_close(scores, 2 * batch.clean.flatten(1).mean(1))
    assert seen == [torch.float32]


def distillation(**options):
    return DistillRecipe(**{"steps": 60, "lessons": 4, "learning_rate": 2e-2, "guidance": 4.0, **options})


def test_the_schedules_begin_at_the_noised_input_and_the_uniform_ones_at_noise():
    jumps = measure_jumps(Host(), [batches(step, 32) for step in (0, 1)], GRID, 4.0)
    found = choose(jumps, GRID, (1, 2, 3, 4))
    for steps, (sigmas, cost) in found.items():
        assert sigmas[0] == pytest.approx(0.9375) and sigmas[-1] == 0
        assert len(sigmas) == steps + 1 and set(sigmas) <= set(GRID.tolist())
        assert steps == 1 or cost < found[steps - 1][1]
    assert uniform_schedules((1, 2)) == {1: [1, 0], 2: [1, 0.5, 0]}


@pytest.mark.parametrize(("weights", "like"), [({"truth": 0.0}, "the teacher's"), ({"end": 0.0, "middle": 0.0}, "the truth")])
def test_the_student_comes_nearer_to_what_it_is_taught(tmp_path, weights, like):
    host, recipe = Host(), distillation(**weights)
    schedules = {1: [0.9375, 0.0], 2: [0.9375, 0.5, 0.0]}
    lessons = make_lessons(host, batches, schedules, GRID, recipe, tmp_path / "lessons.pt", None)
    fresh, noise = batches(999, 64), torch.randn(64, 4, 64)
    teacher = trajectory(lambda x, t: host.velocity(x, t, fresh.degraded, None), noise, GRID)[0][-1]
    wanted = {"the teacher's": teacher, "the truth": fresh.clean}[like]

    @torch.no_grad()
    def errors():
        return [(walk(host, fresh, noise, sigmas, 4.0)[-1] - wanted).square().mean().item() for sigmas in schedules.values()]

    before = sum(errors())
    train_student(host, lessons, schedules, recipe, Checkpoint(tmp_path / "s.pt"), None)
    assert sum(errors()) < 0.98 * before
    assert host.adapter.log.item() == pytest.approx(math.log(SPREAD))


def test_mild_degradations_weigh_as_much_as_heavy_ones():
    clean, off = torch.zeros(3, 4, 64), torch.tensor([1.0, 2.0, 0.0])[:, None, None]
    weights = fair_weights(clean + off, clean)  # square errors 1, 4 and 0, which counts as a tenth of their mean, 1/6
    torch.testing.assert_close(weights / weights[0], torch.tensor([1.0, 0.25, 6.0]))
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))


def test_lessons_hold_the_teachers_trajectory_and_are_made_once(tmp_path):
    host, path = Host(), tmp_path / "lessons.pt"
    schedules, recipe = {2: [0.5, 0.25, 0.0]}, distillation(lessons=3)
    made = make_lessons(host, batches, schedules, GRID, recipe, path, None)
    states, _ = trajectory(lambda x, t: host.velocity(x, t, made[1].batch.degraded, None), made[1].noise, GRID)
    torch.testing.assert_close(made[1].states[0.25].float(), states[12], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made[1].states[0.0].float(), states[16], rtol=1e-3, atol=1e-3)
    host.calls = 0
    again = make_lessons(host, batches, schedules, GRID, recipe, path, None)
    assert host.calls == 0 and all(torch.equal(a.noise, b.noise) for a, b in zip(made, again))
    with pytest.raises(ValueError, match="lessons.pt holds another run's checkpoints .its schedules differ.; give another --work"):
        make_lessons(host, batches, {1: [0.75, 0.0], 2: [0.5, 0.125, 0.0]}, GRID, recipe, path, None)
    with pytest.raises(ValueError, match="its model differ"):
        make_lessons(host, batches, schedules, GRID, recipe, path, None, identity={"model": "another"})


@pytest.mark.parametrize("recipe", ["reinforce", "distill"])
def test_a_resumed_run_ends_bit_identical(tmp_path, recipe):
    class Killed(Exception):
        pass

    def run(path, last=None, every=1e9):
        host, seen = Host(), []

        def given(step):
            if step == last:
                raise Killed
            return batches(step)

        if recipe == "reinforce":
            train_reinforced(host, given, reinforcement(steps=6, refresh=2), Checkpoint(path, every), autocast=None)
            return host.adapter.state_dict()
        lessons = make_lessons(host, batches, {1: [0.5, 0.0]}, GRID, distillation(), tmp_path / "lessons.pt", None)

        class Lessons(list):
            def __getitem__(self, index):
                seen.append(index)
                if len(seen) - 1 == last:
                    raise Killed
                return super().__getitem__(index)

        train_student(host, Lessons(lessons), {1: [0.5, 0.0]}, distillation(steps=6), Checkpoint(path, every), None)
        return host.lora.state_dict()

    whole = run(tmp_path / "whole.pt")
    with pytest.raises(Killed):
        run(tmp_path / "part.pt", last=3, every=0)
    resumed = run(tmp_path / "part.pt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_condition_is_given_copy_by_copy():
    batch = batches(0)
    assert torch.equal(prepare_condition(Host(), batch, 3), torch.cat([batch.degraded] * 3))
