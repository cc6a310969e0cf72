"""FLUX-IR's recipes on a flow whose velocity is known: reinforcement raises the reward, the student learns the few steps."""

import math

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.exploration import trajectory
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids
from comfyui_fluxir.training.data.batch import Batch
from comfyui_fluxir.training.engine.draws import Draws
from comfyui_fluxir.training.engine.fit import RunConfig, fit
from comfyui_fluxir.training.engine.optimizers import OptimizerConfig
from comfyui_fluxir.training.engine.processes import make_accelerator
from comfyui_fluxir.training.recipes.distill import DistillRecipe, Lessons, StudentObjective, fair_weights, walk
from comfyui_fluxir.training.recipes.few_step_schedules import choose, measure_jumps, uniform_schedules
from comfyui_fluxir.training.recipes.reinforce import (
    ReinforceObjective,
    ReinforceRecipe,
    closeness,
    prepare_condition,
    reward_of_verifier,
)

SPREAD = 0.6
GRID = flux_sigmas(16, shift=0)


class Spread(torch.nn.Module):
    """What is learned: how far clean latents lie around the degraded one."""

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
        self.adapter, self.lora, self.transformer, self.calls = Spread(), Change(), None, 0

    def prepare(self, degraded, text, pooled, image_ids, columns):
        return degraded

    def velocity(self, x, t, degraded, guidance):
        self.calls += 1
        t, variance = t.clamp(min=1e-3)[:, None, None], self.adapter.log.exp() ** 2
        gain = (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)
        clean = degraded + gain * (x - (1 - t) * degraded)
        return (x - clean) / t + self.lora.state * x + self.lora.degraded * degraded


class Images:
    """`count` images a step; the step `killed` does not come."""

    description, validation = "drawn", ()

    def __init__(self, count=4, killed=None):
        self.count, self.killed = count, killed

    def rows(self, step):
        return self.count

    def __call__(self, step, rows):
        if step == self.killed:
            raise Killed
        draw = torch.Generator().manual_seed(100 + step)
        degraded = torch.randn(self.count, 4, 64, generator=draw)
        clean = degraded + SPREAD * torch.randn(self.count, 4, 64, generator=draw)
        own = (tensor[rows.start : rows.stop] for tensor in (clean, degraded))
        return Batch(*own, torch.zeros(len(rows), 2, 8), torch.zeros(len(rows), 4), image_ids(4, 4), (4, 4))


class Killed(Exception):
    pass


def batches(step, count=4):
    return Images(count)(step, range(count))


def train(objective, given, folder, steps, micro_batch=4, rate=2e-2, average=0.9):
    """`fit` of `objective` on the batches `given`, its averaged weights in place; one checkpoint a step."""
    optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0.0, beta2=0.99, warmup=5, decay=0.4, average=average)
    run = RunConfig(steps, 4, micro_batch, checkpoint_every=1)
    weights = fit(objective, given, optimizer, run, folder, make_accelerator("ddp", "no"))
    objective.adapter.load_state_dict(weights)
    return weights


@torch.no_grad()
def sampled_psnr(host, steps=8):
    batch = batches(999, 64)
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(1))
    states, _ = trajectory(lambda x, t: host.velocity(x, t, batch.degraded, None), noise, flux_sigmas(steps))
    return closeness(states[-1], batch).mean().item()


def reinforcement(host, rewards=None, **options):
    return ReinforceObjective(host, ReinforceRecipe(**{"rollout_steps": 6, **options}), rewards)


def test_reinforcement_brings_the_odes_ends_nearer_to_the_truth(tmp_path):
    host = Host()
    before = sampled_psnr(host)
    train(reinforcement(host), Images(), tmp_path, 40)
    assert sampled_psnr(host) > before + 0.1


@torch.no_grad()
def test_the_first_rollout_is_the_odes_and_the_best_has_the_highest_reward():
    host, batch, noise = Host(), batches(0), torch.randn(4, 4, 64)
    objective = reinforcement(host, rollouts=5, spread=0.5)
    states, rewards, best = objective.explore(batch, noise, Draws(0, 0, range(4)))
    assert states.shape == (7, 5, 4, 4, 64) and rewards.shape == (5, 4)
    ode, _ = trajectory(lambda x, t: host.velocity(x, t, batch.degraded, None), noise, objective.sigmas)
    torch.testing.assert_close(states[:, 0], ode, rtol=1e-4, atol=1e-5)
    assert (states[0] == noise).all() and (states[-1, 1:] - ode[-1]).abs().mean() > 0.01
    assert torch.equal(rewards.gather(0, best[None])[0], rewards.amax(0))
    torch.testing.assert_close(rewards[2, 1], closeness(states[-1, 2], batch)[1])


def test_the_exploring_weights_are_of_the_last_refresh(tmp_path):
    host = Host()
    objective = reinforcement(host, refresh=4)
    train(objective, Images(), tmp_path, 6)
    before = reinforcement(Host(), refresh=4)
    before.adapter.load_state_dict(train(before, Images(), tmp_path / "four", 4, average=0.0))
    assert objective.explorer.values[0].item() != host.adapter.log.item()
    assert objective.explorer.values[0].item() != pytest.approx(math.log(SPREAD))


def test_any_verifier_can_be_the_reward(tmp_path):
    host = Host()

    def narrow(latents, batch):  # a verifier that likes results close to the input
        return -(latents - batch.degraded).square().flatten(1).mean(1)

    train(reinforcement(host, {"narrow": narrow}, pull=0.0, flow=0.0, spread=0.6), Images(), tmp_path, 40)
    assert host.adapter.log.exp().item() < SPREAD - 0.02


@torch.no_grad()
def test_of_several_rewards_the_mean_z_score_counts():
    batch, noise = batches(0), torch.randn(4, 4, 64)
    rewards = {"closeness": closeness, "dark": lambda latents, batch: -latents.flatten(1).mean(1)}
    objective = reinforcement(Host(), rewards, rollouts=5, spread=0.5)
    states, combined, best = objective.explore(batch, noise, Draws(0, 0, range(4)))
    scores = [torch.stack([own(end, batch) for end in states[-1]]) for own in rewards.values()]
    z = sum((own - own.mean(0)) / own.std(0, correction=0) for own in scores) / 2
    torch.testing.assert_close(combined, z, rtol=1e-3, atol=1e-3)
    assert torch.equal(best, z.argmax(0))


@pytest.mark.parametrize("recipe", ["reinforce", "distill"])
def test_micro_batches_change_rounding_alone(tmp_path, recipe):
    trained = []
    for micro_batch in (4, 2):
        host = Host()
        if recipe == "reinforce":
            objective, given = reinforcement(host), Images()
        else:
            objective, given = student(host), made_lessons(host, tmp_path / "lessons", {2: [0.9375, 0.5, 0.0]}, micro_batch=2)
        trained.append(train(objective, given, tmp_path / str(micro_batch), 3, micro_batch))
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=1e-4, atol=1e-5)


def test_a_verifier_judges_decoded_images_in_full_precision():
    seen, batch = [], batches(0)

    def judge(images):
        seen.append((images @ images.mT).dtype)
        return images.flatten(1).mean(1)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = reward_of_verifier(judge, lambda latents: 2 * latents)(batch.clean, batch)
    torch.testing.assert_close(scores, 2 * batch.clean.flatten(1).mean(1))
    assert seen == [torch.float32]


def student(host, **options):
    return StudentObjective(host, DistillRecipe(**{"lessons": 4, **options}))


def made_lessons(host, folder, schedules, count=4, identity=None, micro_batch=4):
    lessons = Lessons(folder, schedules, count, Images())
    lessons.make(host, Images(), GRID, 4.0, micro_batch=micro_batch, identity=identity)
    return lessons


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
    host = Host()
    schedules = {1: [0.9375, 0.0], 2: [0.9375, 0.5, 0.0]}
    lessons = made_lessons(host, tmp_path / "lessons", schedules)
    fresh, noise = batches(999, 64), torch.randn(64, 4, 64)
    teacher = trajectory(lambda x, t: host.velocity(x, t, fresh.degraded, None), noise, GRID)[0][-1].detach()
    wanted = {"the teacher's": teacher, "the truth": fresh.clean}[like]

    @torch.no_grad()
    def errors():
        return [(walk(host, fresh, noise, sigmas, 4.0)[-1] - wanted).square().mean().item() for sigmas in schedules.values()]

    before = sum(errors())
    train(student(host, **weights), lessons, tmp_path / "run", 60)
    assert sum(errors()) < 0.98 * before
    assert host.adapter.log.item() == pytest.approx(math.log(SPREAD))


def test_mild_degradations_weigh_as_much_as_heavy_ones():
    clean, off = torch.zeros(3, 4, 64), torch.tensor([1.0, 2.0, 0.0])[:, None, None]
    weights = fair_weights(clean + off, clean)  # square errors 1, 4 and 0, which counts as a tenth of their mean, 1/6
    torch.testing.assert_close(weights / weights[0], torch.tensor([1.0, 0.25, 6.0]))
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))


@torch.no_grad()
def test_lessons_hold_the_teachers_trajectory_and_are_made_once(tmp_path):
    host, schedules = Host(), {2: [0.5, 0.25, 0.0]}
    lesson = made_lessons(host, tmp_path, schedules, 3)(1, range(4))
    states, _ = trajectory(lambda x, t: host.velocity(x, t, lesson.degraded, None), lesson.noise, GRID)
    torch.testing.assert_close(lesson.states[0.25], states[12], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(lesson.states[0.0], states[16], rtol=1e-3, atol=1e-3)
    assert torch.equal(lesson.clean, batches(1).clean) and lesson.sigmas == schedules[2]
    host.calls = 0
    again = made_lessons(host, tmp_path, schedules, 3)(1, range(4))
    assert host.calls == 0 and torch.equal(lesson.noise, again.noise)
    with pytest.raises(ValueError, match=r"holds another run's checkpoints .its schedules differ.; give another --work"):
        made_lessons(host, tmp_path, {1: [0.75, 0.0], 2: [0.5, 0.125, 0.0]}, 3)
    with pytest.raises(ValueError, match="the time 0.3 of a schedule is none of the teacher's 16 steps"):
        made_lessons(host, tmp_path / "off", {2: [0.5, 0.3, 0.0]}, 1)
    with pytest.raises(ValueError, match="its model differ"):
        made_lessons(host, tmp_path, schedules, 3, identity={"model": "another"})


def test_a_broken_lesson_is_made_again(tmp_path, caplog):
    host, schedules = Host(), {1: [0.5, 0.0]}
    whole = made_lessons(host, tmp_path, schedules, 2)(0, range(4)).noise
    path = tmp_path / "lesson-00000.pt"
    path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(made_lessons(host, tmp_path, schedules, 2)(0, range(4)).noise, whole)
    assert "lesson-00000.pt" in caplog.text


def test_processes_share_the_lessons(tmp_path):
    host, lessons = Host(), Lessons(tmp_path, {1: [0.5, 0.0]}, 3, Images())
    for process in (0, 1):
        host.calls = 0
        lessons.make(host, Images(), GRID, 4.0, process=process, processes=2)
        assert host.calls == len(GRID[:-1]) * (2 - process)
    assert len(list(tmp_path.glob("lesson-*.pt"))) == 3


@pytest.mark.parametrize("recipe", ["reinforce", "distill"])
def test_a_resumed_run_ends_bit_identical(tmp_path, recipe):
    def run(folder, killed=None):
        host = Host()
        if recipe == "reinforce":
            return train(reinforcement(host, refresh=2), Images(killed=killed), folder, 6)
        lessons = made_lessons(host, tmp_path / "lessons", {1: [0.5, 0.0]})
        read = lessons.__call__

        class Given:
            rows, description, validation = lessons.rows, "lessons", ()

            def __call__(self, step, rows):
                if step == killed:
                    raise Killed
                return read(step, rows)

        return train(student(host), Given(), folder, 6)

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "part", killed=3)
    resumed = run(tmp_path / "part")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_condition_is_given_copy_by_copy():
    batch = batches(0)
    assert torch.equal(prepare_condition(Host(), batch, 3), torch.cat([batch.degraded] * 3))
