"""LATENTs and IMAGEs that do not fit: every node says so in one sentence of its own, before anything is sampled."""

import pytest
import torch

from .comfy_host import prompt, random_latent

SIGMAS = torch.tensor([0.9, 0.5, 0.0])


def nested():
    from comfy.nested_tensor import NestedTensor

    return NestedTensor([torch.zeros(1, 16, 8, 8), torch.zeros(1, 8, 4)])


LATENTS = {
    "sound and video": nested,
    "five axes": lambda: torch.rand(1, 16, 3, 8, 8),
    "one frame": lambda: torch.rand(1, 16, 1, 8, 8),
    "three axes": lambda: torch.rand(16, 8, 8),
    "four channels": lambda: torch.rand(1, 4, 8, 8),
    "no image": lambda: torch.zeros(0, 16, 8, 8),
    "no rows": lambda: torch.zeros(1, 16, 0, 8),
    "NaN": lambda: torch.full((1, 16, 8, 8), torch.nan),
}
IMAGES = {
    "two channels": lambda: torch.rand(1, 64, 64, 2),
    "five channels": lambda: torch.rand(1, 64, 64, 5),
    "channels first": lambda: torch.rand(1, 3, 64, 64),
    "three axes": lambda: torch.rand(64, 64, 3),
    "video": lambda: torch.rand(1, 2, 64, 64, 3),
    "bytes": lambda: torch.zeros(1, 64, 64, 3, dtype=torch.uint8),
    "no image": lambda: torch.zeros(0, 64, 64, 3),
    "no rows": lambda: torch.zeros(1, 0, 64, 3),
}
LATENT_INPUTS = [
    ("Apply FluxIR Adapter", "the degraded latent"),
    ("Restoration Fidelity", "the degraded latent"),
    ("Noisy Start Latent", "the degraded latent"),
    ("UMMF Conditioning", "degraded"),
    ("UMMF Conditioning", "reference"),
    ("TTS Sampler (test-time search)", "latent_image"),
    ("TTS Sampler Select (test-time search)", "latent_image"),
    ("Budget Plan", "latent_image"),
    ("Decode Photo", "samples"),
    ("LucidFlux Sigmas", "latent"),
]
IMAGE_INPUTS = [
    ("UMMF Conditioning", "degraded"),
    ("UMMF Conditioning", "reference"),
    ("TTS Sampler (test-time search)", "degraded"),
    ("TTS Sampler Select (test-time search)", "degraded"),
    ("Degradation Check", "degraded"),
    ("Degradation Check", "cleaned"),
    ("Caption Image", "image"),
    ("Color Match", "image"),
    ("Color Match", "reference"),
    ("Invented Detail", "restored"),
    ("Invented Detail", "degraded"),
    ("Search Report Chart", "final_candidates"),
    ("Score Images", "images"),
    ("Score Images", "degraded"),
    ("Degrade Image", "image"),
    ("Select Images", "images"),
    ("Save Image Pairs", "good"),
    ("Save Image Pairs", "degraded"),
    ("Evaluate Restoration", "restored"),
    ("Evaluate Restoration", "degraded"),
    ("Evaluate Restoration", "original"),
    ("Encode Photo", "photo"),
    ("Decode Photo", "photo"),
    ("Give Back Detail", "restored"),
    ("Give Back Detail", "degraded"),
    ("Before and After", "before"),
    ("Before and After", "after"),
    ("Apply LucidFlux", "degraded"),
    ("Apply LucidFlux", "cleaned"),
    ("Align to Input", "restored"),
    ("Align to Input", "degraded"),
    ("Split into Tiles", "image"),
    ("Save Photo by Name", "image"),
]


class Unused:
    """Stands for what a node must not come to use."""

    def measure(self, *_):
        raise AssertionError("something was scored")


@pytest.fixture(scope="module")
def run(host, vae, tmp_path_factory):
    """run(node, **inputs) executes a node with `inputs` in the place of good ones."""
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
    from comfyui_fluxir.nodes import (
        align,
        budget_plan,
        caption,
        color,
        compare,
        degrade,
        detail,
        evaluate,
        few_steps,
        fidelity,
        fluxgen,
        photo_folder,
        search,
        tile_prompts,
        ummf,
    )
    from comfyui_fluxir.nodes import (
        photo as photo_nodes,
    )
    from comfyui_fluxir.nodes.lucidflux import LucidFluxSigmas
    from comfyui_fluxir.nodes.verifiers import NaturalImageVerifier, ScoreImages

    from .lucidflux_host import LucidFluxHost
    from .search_host import guider, noise

    lucid = LucidFluxHost(host, tmp_path_factory.mktemp("lucid"))

    image, verifier = torch.rand(1, 64, 64, 3), NaturalImageVerifier.execute().result[0]
    latent = {"samples": random_latent(1)}

    def select(latent_image, degraded=None):
        sampler = search.TTSSamplerSelect.execute(vae, verifier, "quick", degraded=degraded).result[0]
        return SamplerCustomAdvanced.execute(noise(), guider(host.model), sampler, SIGMAS, latent_image)

    nodes = {
        "Apply FluxIR Adapter": (lambda degraded: host.apply(lq=degraded["samples"]), {}),
        "Restoration Fidelity": (lambda degraded: fidelity.RestorationFidelity.execute(host.model, degraded, 0.5), {}),
        "Noisy Start Latent": (
            lambda degraded: few_steps.NoisyStartLatent.execute(model=host.model, noise=noise(), sigmas=SIGMAS, degraded=degraded),
            {},
        ),
        "UMMF Conditioning": (
            lambda **given: ummf.UMMFConditioning.execute(prompt(3), vae=vae, **given),
            {"degraded": latent},
        ),
        "TTS Sampler (test-time search)": (
            lambda **given: search.TTSSampler.execute(
                noise(), guider(host.model), SIGMAS, vae=vae, verifier=verifier, preset="quick", **given
            ),
            {"latent_image": latent},
        ),
        "TTS Sampler Select (test-time search)": (select, {"latent_image": latent}),
        "Budget Plan": (
            lambda latent_image: budget_plan.BudgetPlan.execute(SIGMAS, "quick", None, guider(host.model), latent_image),
            {},
        ),
        "Degradation Check": (caption.DegradationCheck.execute, {"degraded": image, "cleaned": image}),
        "Caption Image": (lambda image: caption.CaptionImage.execute(image, "nowhere"), {}),
        "Color Match": (
            lambda image, reference: color.MatchColor.execute(image, reference, "wavelet", 1.0),
            {"image": image, "reference": image},
        ),
        "Invented Detail": (fidelity.InventedDetail.execute, {"restored": image, "degraded": image}),
        "Search Report Chart": (lambda final_candidates: search.SearchReportChart.execute("{}", 0, final_candidates), {}),
        "Score Images": (
            lambda **given: ScoreImages.execute(verifier=[Unused()], keep=[1], **{name: [value] for name, value in given.items()}),
            {"images": image},
        ),
        "Degrade Image": (lambda image: degrade.DegradeImage.execute(image, "Real-ESRGAN", 0.5, 0), {}),
        "Select Images": (lambda images: fluxgen.SelectImages.execute(images, Unused(), 0.95), {}),
        "Save Image Pairs": (
            lambda good, degraded: fluxgen.SaveImagePairs.execute(good, degraded, "a/b"),
            {"good": image, "degraded": image},
        ),
        "Align to Input": (
            lambda restored, degraded: align.AlignToInput.execute(restored, degraded, True),
            {"restored": image, "degraded": image},
        ),
        "Split into Tiles": (lambda image: tile_prompts.SplitIntoTiles.execute(image, 64, 0.25), {}),
        "Save Photo by Name": (lambda image: photo_folder.SavePhotoByName.execute(image, "a.png", "restored"), {}),
        "Encode Photo": (lambda photo: photo_nodes.EncodePhoto.execute(photo, vae), {}),
        "Decode Photo": (
            lambda samples, photo: photo_nodes.DecodePhoto.execute(samples, vae, photo),
            {"samples": latent, "photo": image},
        ),
        "Give Back Detail": (
            lambda restored, degraded: detail.GiveBackDetail.execute(restored, degraded, vae, 1.0),
            {"restored": image, "degraded": image},
        ),
        "Before and After": (
            lambda before, after: compare.BeforeAndAfter.execute(before, after, "split"),
            {"before": image, "after": image},
        ),
        "Apply LucidFlux": (lucid.apply, {}),
        "LucidFlux Sigmas": (lambda **given: LucidFluxSigmas.execute(steps=4, **given), {}),
        "Evaluate Restoration": (evaluate.EvaluateRestoration.execute, {"restored": image}),
    }

    def run(node, **inputs):
        execute, usual = nodes[node]
        with torch.inference_mode():
            return execute(**{**usual, **inputs})

    return run


def refused(run, node, name, value):
    with pytest.raises(ValueError) as error:
        run(node, **{name.removeprefix("the ").removesuffix(" latent"): value})
    message = str(error.value)
    assert message.startswith(f"{node}: {name} ") and message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize(("node", "name"), LATENT_INPUTS)
@pytest.mark.parametrize("latent", LATENTS)
def test_a_latent_that_does_not_fit_is_refused_at_its_node(run, node, name, latent):
    if (node, latent) == ("LucidFlux Sigmas", "four channels"):  # an empty one has them, and it looks at the size alone
        assert len(run(node, latent={"samples": LATENTS[latent]()}).result[0]) == 5
        return
    message = refused(run, node, name, {"samples": LATENTS[latent]()})
    expected = {"sound and video": "sound and video", "NaN": "NaN or infinity", "no image": "is empty", "no rows": "is empty"}
    if (node, latent) != ("TTS Sampler Select (test-time search)", "sound and video"):  # core gives samplers both in one row
        assert expected.get(latent, "the model's own VAE") in message


@pytest.mark.parametrize(("node", "name"), IMAGE_INPUTS)
@pytest.mark.parametrize("image", IMAGES)
def test_an_image_that_is_none_is_refused_at_its_node(run, node, name, image):
    message = refused(run, node, name, IMAGES[image]())
    assert ("is empty" if image in ("no image", "no rows") else "but an IMAGE is") in message


@pytest.mark.parametrize("size", [(7, 64), (1, 1), (4, 2048)])
def test_an_image_that_is_too_small_for_the_vae_is_refused(run, size):
    message = refused(run, "UMMF Conditioning", "degraded", torch.rand(1, *size, 3))
    assert f"{size[1]}x{size[0]} pixels, but the VAE needs at least 8 a side" in message


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_and_alpha_are_images(run, vae, channels):
    image = torch.rand(1, 64, 64, channels)
    [[_, values]] = run("UMMF Conditioning", degraded=image).result[0]
    with torch.inference_mode():
        expected = vae.encode(image[..., :3].expand(-1, -1, -1, 3))
    assert torch.equal(values["reference_latents"][0], expected)
    assert run("Invented Detail", restored=image, degraded=image).result[0].shape == (1, 64, 64, 3)


@pytest.mark.parametrize("node", ["UMMF Conditioning", "TTS Sampler (test-time search)", "TTS Sampler Select (test-time search)"])
def test_a_degraded_image_with_nan_is_refused(run, node):
    assert "holds NaN or infinity" in refused(run, node, "degraded", torch.full((1, 64, 64, 3), torch.nan))


@pytest.mark.parametrize(
    ("sigmas", "why"),
    [
        ([1.0], "hold no step"),
        ([0.2, 0.8, 0.0], "do not fall"),
        ([1.0, torch.nan, 0.0], "do not fall"),
        ([14.6, 2.0, 0.0], "do not fall from 1"),
        ([1.0, 0.5], "the last sigma is 0.5"),
    ],
)
def test_budget_plan_checks_its_sigmas_as_the_search_does(comfy, sigmas, why):
    from comfyui_fluxir.nodes.budget_plan import BudgetPlan

    with pytest.raises(ValueError, match=f"^Budget Plan: .*{why}"):
        BudgetPlan.execute(torch.tensor(sigmas), "quick")


def test_every_latent_and_image_of_every_node_is_tried_above(schemas):
    found = {"LATENT": set(), "IMAGE": set()}
    for schema in schemas.values():
        for each in schema.inputs:
            for kind in each.get_io_type().split(","):
                if kind in found:
                    found[kind].add((schema.display_name.partition(" (")[0], each.id))
    for kind, inputs in (("LATENT", LATENT_INPUTS), ("IMAGE", IMAGE_INPUTS)):
        tried = {(node.partition(" (")[0], name.removeprefix("the ").removesuffix(" latent")) for node, name in inputs}
        tried -= {("TTS Sampler Select", "latent_image")}  # that comes through core's sampler
        assert tried == found[kind] - {("Score Images", "latents")}  # these may be of any model
