"""Few-step students in the real ComfyUI: their schedules, their start, and the same result as in diffusers."""

import os
import shutil

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, interpolate
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents
from comfyui_fluxir.fluxir_core.lora.few_steps import add_schedules

from .comfy_host import prompt, random_latent
from .search_host import guider, noise, run
from .test_ummf_nodes import SCALE, SHIFT
from .tiny import STUDENT_SCHEDULES, tiny_student, write_tiny_lora, write_tiny_student

STUDENT = "tiny-few-steps.safetensors"


@pytest.fixture(scope="module")
def nodes(host, tmp_path_factory):
    """The nodes' module; a student, an adapter with schedules and a UMMF LoRA are in ComfyUI's folders."""
    import folder_paths
    from comfyui_fluxir.nodes import few_steps
    from comfyui_fluxir.nodes.folders import ADAPTERS

    loras, adapters = tmp_path_factory.mktemp("loras"), tmp_path_factory.mktemp("adapters")
    write_tiny_student(loras / STUDENT)
    write_tiny_lora(loras / "tiny-ummf.safetensors")
    (own,) = (host.folder / "fluxir_adapters").glob("*.safetensors")
    shutil.copy(own, adapters / "scheduled.safetensors")
    add_schedules(adapters / "scheduled.safetensors", {3: [0.8, 0.5, 0.2, 0.0]})
    for key, folder in (("loras", loras), (ADAPTERS, adapters)):
        folder_paths.add_model_folder_path(key, str(folder), is_default=True)
    folder_paths.filename_list_cache.clear()
    return few_steps


def distilled(nodes, steps, name=STUDENT):
    return nodes.DistilledSigmas.execute(name, steps).result[0]


def with_student(model):
    import nodes as core

    return core.LoraLoaderModelOnly().load_lora_model_only(model, STUDENT, 1.0)[0]


def sampled(model, sigmas, latent, source=None, positive=None):
    """SamplerCustomAdvanced with core's Euler sampler."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    with torch.inference_mode():
        made = SamplerCustomAdvanced.execute(
            source or noise(), guider(model, positive), comfy.samplers.sampler_object("euler"), sigmas, {"samples": latent}
        )
    return made.result[0]["samples"]


def test_the_sigmas_are_the_files(nodes):
    for steps, sigmas in STUDENT_SCHEDULES.items():
        assert distilled(nodes, steps).tolist() == pytest.approx(sigmas)
    assert distilled(nodes, 3, "scheduled.safetensors").tolist() == pytest.approx([0.8, 0.5, 0.2, 0.0])


def test_a_file_that_was_scheduled_anew_is_read_again(nodes):
    import folder_paths

    before = nodes.DistilledSigmas.fingerprint_inputs("scheduled.safetensors", 3)
    assert nodes.DistilledSigmas.fingerprint_inputs("scheduled.safetensors", 3) == before
    path = folder_paths.get_full_path("fluxir_adapters", "scheduled.safetensors")
    os.utime(path, (before + 5, before + 5))
    assert nodes.DistilledSigmas.fingerprint_inputs("scheduled.safetensors", 3) != before
    assert nodes.DistilledSigmas.fingerprint_inputs("none.safetensors", 3) is None


def test_a_schedule_that_a_file_does_not_have_is_refused_in_one_sentence(nodes):
    with pytest.raises(ValueError, match="^Distilled Sigmas: tiny-few-steps.* no schedule for 3 steps; it has those for 1, 2, 4"):
        distilled(nodes, 3)
    with pytest.raises(ValueError, match="^Distilled Sigmas: tiny-ummf.safetensors states no schedule; choose a few-step LoRA"):
        distilled(nodes, 4, "tiny-ummf.safetensors")
    with pytest.raises(ValueError, match="^Distilled Sigmas: there is no gone.safetensors"):
        distilled(nodes, 4, "gone.safetensors")


def test_core_starts_a_student_from_the_noised_degraded_latent(host, nodes):
    from comfy.samplers import KSAMPLER
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    seen, lq, sigmas = [], random_latent(1), distilled(nodes, 2)

    def watch(model, x, sigmas, extra_args=None, callback=None, disable=None):
        seen.append(x.clone())
        return x

    SamplerCustomAdvanced.execute(noise(), guider(host.model), KSAMPLER(watch), sigmas, {"samples": lq})
    eps = noise().generate_noise({"samples": lq})
    torch.testing.assert_close(seen[0], (1 - sigmas[0]) * (lq - SHIFT) * SCALE + sigmas[0] * eps, rtol=1e-5, atol=1e-6)


def test_the_start_latent_without_noise_is_cores_start_with_it(host, nodes):
    from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise

    lq, sigmas = random_latent(1), distilled(nodes, 4)
    with torch.inference_mode():
        start = nodes.NoisyStartLatent.execute(host.model, sigmas, {"samples": lq, "batch_index": [0]}, noise()).result[0]
    assert start["batch_index"] == [0]
    model = host.apply()
    ours = sampled(model, sigmas, start["samples"], Noise_EmptyNoise())
    torch.testing.assert_close(ours, sampled(model, sigmas, lq), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sigmas", "said"), [(torch.tensor([1.0, 0.0]), "begin at 1,"), (torch.tensor([]), "are empty,")])
def test_pure_noise_is_no_start(host, nodes, sigmas, said):
    with pytest.raises(ValueError, match=f"^Noisy Start Latent: the sigmas {said}.*use Distilled Sigmas"):
        nodes.NoisyStartLatent.execute(host.model, sigmas, {"samples": random_latent(1)}, noise())


@pytest.mark.parametrize("steps", STUDENT_SCHEDULES)
def test_both_hosts_reach_the_same_latent(host, nodes, steps):
    from comfyui_fluxir.training.diffusers_host.lora_host import LoRAHost
    from comfyui_fluxir.training.diffusers_host.restorer import Restorer

    lq, sigmas = random_latent(1), distilled(nodes, steps)
    eps = pack_latents(noise().generate_noise({"samples": lq}))
    [[text, extra]] = prompt(3)
    inner = Restorer(host.folder).host
    student = LoRAHost(inner, tiny_student())
    with torch.no_grad():
        tokens = pack_latents((lq - SHIFT) * SCALE)
        condition = inner.prepare(tokens, text, extra["pooled_output"], image_ids(8, 8))
        start = interpolate(tokens, eps, sigmas[:1])
        found = euler(lambda x, t: student.velocity(x, t, condition, torch.full_like(t, 4.0)), start, sigmas)
    expected = unpack_latents(found, 8, 8) / SCALE + SHIFT
    bare = sampled(host.apply(), sigmas, lq)
    for model in (host.apply(with_student(host.model)), with_student(host.apply())):  # the LoRA before or after the adapter
        torch.testing.assert_close(sampled(model, sigmas, lq), expected, rtol=1e-3, atol=1e-3)
    assert (expected - bare).abs().mean() > 0.05


def test_a_search_over_a_student_starts_where_the_student_does(host, vae, nodes):
    lq, sigmas, model = random_latent(1), distilled(nodes, 4), with_student(host.apply())
    best, finalists, report = run(host, vae, model=model, latent={"samples": lq}, steps=sigmas, preset="best_of_n")
    torch.testing.assert_close(finalists["samples"][:1], sampled(model, sigmas, lq), rtol=1e-4, atol=1e-4)
    assert report["nfe"] == 15 * 4 and torch.isfinite(best["samples"]).all()


def test_a_student_restores_beside_ummf_too(host, nodes):
    from comfyui_fluxir.nodes.ummf import ApplyUMMFLoRA, UMMFConditioning

    lq, sigmas = random_latent(1), distilled(nodes, 2)
    positive = UMMFConditioning.execute(prompt(3), {"samples": lq}).result[0]
    reading = ApplyUMMFLoRA.execute(host.model, "tiny-ummf.safetensors", 1.0).result[0]
    slow = sampled(reading, sigmas, lq, positive=positive)
    fast = sampled(with_student(reading), sigmas, lq, positive=positive)
    before = ApplyUMMFLoRA.execute(with_student(host.model), "tiny-ummf.safetensors", 1.0).result[0]
    torch.testing.assert_close(fast, sampled(before, sigmas, lq, positive=positive), rtol=1e-3, atol=1e-3)
    assert (fast - slow).abs().mean() > 0.01 and torch.isfinite(fast).all()


def test_a_student_reads_no_images(host, nodes):
    from comfyui_fluxir.nodes.ummf import ApplyUMMFLoRA

    with pytest.raises(ValueError, match="^Apply UMMF LoRA: tiny-few-steps.* is a few-step LoRA.*load it with Load LoRA"):
        ApplyUMMFLoRA.execute(host.model, STUDENT, 1.0)


def evolutionary_search(nodes, student=None, **options):
    from comfyui_fluxir.nodes.search_algorithms import EvolutionarySearchAlgorithm

    settings = dict(
        parents=1,
        children=3,
        rounds=2,
        first_round=0.0,
        last_round=0.5,
        noise_method="corrected noise",
        strength=1.0,
        look_ahead="to the end",
        look_ahead_steps=0,
        survival="best of all",
        baseline_check=True,
    )
    given = {"student": guider(student), "student_sigmas": distilled(nodes, 2)} if student else {}
    return EvolutionarySearchAlgorithm.execute(**settings, **{**given, **options}).result[0]


@pytest.mark.parametrize("shared", [True, False])
def test_a_student_looks_ahead_for_the_slow_model(host, vae, nodes, shared):
    """The slow model samples as without it, also where both share the base's weights and the LoRA is in one of them only."""
    import comfy.sd

    base = host.model if shared else comfy.sd.load_diffusion_model(str(host.paths["diffusion_models"]))
    slow, lq = host.apply(), random_latent(1)
    _best, finalists, report = run(host, vae, model=slow, search=evolutionary_search(nodes, with_student(host.apply(base))))
    assert report["nfe"] == report["nfe_planned"] == 6 + 6 and report["student_calls"] == 4 * 3 + 4 * 2
    torch.testing.assert_close(finalists["samples"][-1:], sampled(slow, torch.linspace(1, 0, 7), torch.zeros_like(lq)))
    _, _, own = run(host, vae, model=slow, search=evolutionary_search(nodes))
    assert own["nfe"] > report["nfe"] and own["log"][0]["values"] != report["log"][0]["values"]


def test_canceling_while_a_student_looks_ahead_keeps_the_best(host, vae, nodes, monkeypatch):
    import comfy.model_management
    from comfyui_fluxir.nodes.student import _Finisher

    looks, sample = [], _Finisher._sample

    def canceled(self, *arguments):
        looks.append(1)
        if len(looks) == 3:
            comfy.model_management.interrupt_current_processing()
        return sample(self, *arguments)

    monkeypatch.setattr(_Finisher, "_sample", canceled)
    search = evolutionary_search(nodes, with_student(host.apply(host.model)))
    best, _, report = run(host, vae, model=host.apply(), search=search, keep_best=True)
    assert report["stopped"] and report["log"] and best["samples"].isfinite().all()


def test_half_a_student_is_refused(host, nodes):
    with pytest.raises(ValueError, match="^Evolutionary Search: a student needs both student and student_sigmas"):
        evolutionary_search(nodes, student_sigmas=distilled(nodes, 2))
