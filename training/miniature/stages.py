"""FLUX-IR (arXiv 2410.04811) on the miniature, stage by stage.

Each stage reads a model folder and writes one, or adds to it; `work` keeps lessons and checkpoints, `photos` is the folder that
the photographs are fetched to, or None for scikit-image's alone.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ...fluxir_core.adapter.checkpoint import load_adapter, save_adapter
from ...fluxir_core.degrade.presets import degrade_random
from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ...fluxir_core.lora.few_steps import save_few_steps
from ...fluxir_core.lora.lora import LoRA, linear_sizes, lora_targets
from ...fluxir_core.verify.selection import metric_named
from ..diffusers_host.fluxir_host import FluxIRHost
from ..diffusers_host.lora_host import LoRAHost
from ..diffusers_host.model_folder import load_models, model_folder, only_file
from ..engine.fit import RunConfig, fit
from ..engine.optimizers import OptimizerConfig
from ..engine.processes import make_accelerator, whole
from ..outputs import deliver
from ..recipes.distill import DistillRecipe, Lessons, StudentObjective
from ..recipes.few_step_schedules import GRID, uniform_schedules
from ..recipes.fluxir import FluxIRObjective
from ..recipes.reinforce import ReinforceObjective, ReinforceRecipe, reward_of_verifier
from .batches import MiniatureBatches
from .recipe import BATCH, NOISE_TONE, RECIPE
from .tasks import degrade_by_tasks

HALFWAY = 0.5
"""Where between its weights of before and after the seven tasks the adapter ends (WiSE-FT, arXiv 2109.01903, equation 1 and its
default). Some tasks ask for a darker image and some for a brighter one, and so short a training finds a tone between them: on
training images the trained end has 2.5 dB less under noise, halfway 0.6."""


RANK = 10
"""Of the student's LoRA: with the image stream's last layers it stays under half a megabyte."""


LAST = ("norm_out.linear", "proj_out")


CLOSENESS = "closeness"


LEFT_OUT = shutil.ignore_patterns("*few-steps*", "README.md")
"""What a new model folder does not take over: another adapter's student, and the model card."""


@dataclass(frozen=True)
class Amounts:
    """How much of everything; the defaults made the committed weights."""

    size: int = 256
    pairs: int = 256
    teacher_steps: int = 750
    reinforce_steps: int = 250
    reinforce_batch: int = 8
    lessons: int = 96
    lesson_batch: int = 32
    distill_steps: int = 600


QUICK = Amounts(128, 8, 3, 2, 2, 3, 4, 3)
"""Every stage in seconds, for the tests: files that load, no better images."""


@dataclass
class Loaded:
    """A model folder's parts, and the batches of the seven tasks. `identity` tells the folder's base and adapter, as they
    were found, and the batches' `data`: what is kept in a --work folder belongs to one alone."""

    folder: Path
    host: FluxIRHost
    batches: MiniatureBatches
    schedules: dict
    identity: dict

    @property
    def guidance(self):
        return self.host.adapter.config.guidance

    @property
    def adapter_path(self):
        return only_file(self.folder / "fluxir_adapters")


def _device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def fingerprint(module):
    """A name for the weights of `module`."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def load(folder, photos, amounts, batch, seed=0, degrade=degrade_by_tasks):
    """Loads a model folder with its batches; only the adapter can be trained.

    Args:
        folder: as for `load_models`.
        photos: the folder that the photographs are fetched to; None for scikit-image's alone.
        amounts: Amounts.
        batch: images a step.
        seed: of the images.
        degrade: `degrade(image, generator)`, what happens to them; by default the seven tasks.

    Returns:
        Loaded.
    """
    device = _device()
    models = load_models(folder, device)
    for name, parameter in models.adapter.named_parameters():
        last = f"se_text.{models.adapter.config.dims.blocks - 1}."
        parameter.requires_grad_(not (models.adapter.config.inject == "after" and name.startswith(last)))
    options = {"degrade": degrade, "pairs": amounts.pairs}
    batches = MiniatureBatches.for_model(model_folder(folder), amounts.size, batch, False, photos, seed, device, **options)
    identity = {"model": [fingerprint(part) for part in (models.transformer, models.adapter)], "data": batches.fingerprint}
    return Loaded(model_folder(folder), FluxIRHost(models.transformer, models.adapter), batches, models.schedules, identity)


TASKS_OPTIMIZER = OptimizerConfig(learning_rate=3e-4, beta2=0.99, warmup=50, decay=0.6)
REINFORCE_OPTIMIZER = OptimizerConfig(learning_rate=2e-4, weight_decay=0.0, beta2=0.99, warmup=20, decay=0.4, average=0.98)
DISTILL_OPTIMIZER = OptimizerConfig(learning_rate=5e-4, weight_decay=0.0, beta2=0.99, warmup=20, decay=0.4, average=0.99)


def train_tasks(folder, work, out, photos=None, amounts=Amounts()):
    """Goes on training the adapter of a model folder on the seven tasks, by the FluxIR recipe.

    What is written is HALFWAY between the weights of before and after.

    Args:
        folder: the model folder.
        work: the folder of the checkpoints.
        out: the model folder that is written.
        photos: the folder that the photographs are fetched to; None for scikit-image's alone.
        amounts: Amounts.
    """
    loaded, steps = load(folder, photos, amounts, BATCH), amounts.teacher_steps
    before = whole(loaded.host.adapter.state_dict())
    objective = FluxIRObjective(loaded.host, loaded.batches.decode, RECIPE)
    run = RunConfig(steps=steps, batch=BATCH, micro_batch=BATCH, checkpoint_every=100)
    made = {"recipe": asdict(RECIPE), "optimizer": asdict(TASKS_OPTIMIZER)}
    trained = _fit(objective, loaded, loaded.batches, TASKS_OPTIMIZER, run, Path(work) / "teacher", made)
    loaded.host.adapter.load_state_dict({name: torch.lerp(before[name], trained[name], HALFWAY) for name in trained})
    write(loaded, out, {"tasks": {**made, "steps": steps, "halfway": HALFWAY}})


def train_reinforce(folder, work, out, photos=None, reward=CLOSENESS, amounts=Amounts()):
    """Reinforces the adapter of a model folder.

    Its images, and the student's, are degraded by random mixtures; under the tasks it lost what HALFWAY saves (training
    images, 20 steps: 2.8 dB under noise, 1.6 in little light).

    Args:
        folder: the model folder.
        work: the folder of the checkpoints.
        out: the model folder that is written.
        photos: the folder that the photographs are fetched to; None for scikit-image's alone.
        reward: CLOSENESS or a metric's name.
        amounts: Amounts.

    Raises:
        ValueError: the metric is missing.
    """
    metric = reward != CLOSENESS and metric_named(reward, _device())
    loaded = load(folder, photos, amounts, amounts.reinforce_batch, seed=1, degrade=degrade_random)
    recipe, steps, batch = ReinforceRecipe(noise_tone=NOISE_TONE), amounts.reinforce_steps, amounts.reinforce_batch
    judge = reward_of_verifier(metric, loaded.batches.decode) if metric else None
    objective = ReinforceObjective(loaded.host, recipe, loaded.guidance, judge)
    run = RunConfig(steps=steps, batch=batch, micro_batch=batch, checkpoint_every=20)
    made = {"recipe": asdict(recipe), "optimizer": asdict(REINFORCE_OPTIMIZER)}
    trained = _fit(objective, loaded, loaded.batches, REINFORCE_OPTIMIZER, run, Path(work) / f"reinforce-{reward}", made)
    loaded.host.adapter.load_state_dict(trained)
    write(loaded, out, {"reinforce": {"reward": reward, "steps": steps, **made}})


def train_distill(folder, work, photos=None, uniform=False, amounts=Amounts()):
    """Adds to a model folder the few-step LoRA that its adapter's schedules are for.

    Args:
        folder: the model folder.
        work: the folder of the lessons and checkpoints.
        photos: the folder that the photographs are fetched to; None for scikit-image's alone.
        uniform: trains the control instead, on equal steps from pure noise, and writes it as a model folder in `work`.
        amounts: Amounts.

    Returns:
        Path of the LoRA's file.

    Raises:
        ValueError: the adapter's file has no schedules.
    """
    loaded = load(folder, photos, amounts, amounts.lesson_batch, seed=2, degrade=degrade_random)
    if not loaded.schedules:
        raise ValueError(f"--model: {loaded.adapter_path.name} has no schedules; run `fluxir schedule` first.")
    grid, work, kind = flux_sigmas(GRID, shift=0), Path(work), "uniform" if uniform else "optimal"
    schedules = uniform_schedules(loaded.schedules) if uniform else loaded.schedules
    # The miniature's last steps draw texture at the cost of PSNR: the truth teaches beside the slow samples.
    recipe = DistillRecipe(amounts.lessons, middle=0.3, end=0.5, noise_tone=NOISE_TONE)
    steps, batch, device = amounts.distill_steps, amounts.lesson_batch, loaded.batches.device
    loaded.host.adapter.requires_grad_(False)
    lessons = Lessons(work / f"lessons-{kind}", schedules, recipe.lessons, loaded.batches, device)
    identity = {**loaded.identity, "guidance": loaded.guidance, "batch": batch}
    options = {"micro_batch": batch, "identity": identity, "autocast": torch.bfloat16}
    lessons.make(loaded.host, loaded.batches, grid, loaded.guidance, recipe.noise_tone, **options)

    dims = loaded.host.adapter.config.dims
    torch.manual_seed(0)
    targets = lora_targets(dims) | {name: linear_sizes(dims)[name] for name in LAST}
    student = LoRAHost(loaded.host, LoRA.over(targets, dims, RANK).to(device))
    run = RunConfig(steps=steps, batch=batch, micro_batch=batch, checkpoint_every=50)
    made = {"recipe": asdict(recipe), "optimizer": asdict(DISTILL_OPTIMIZER)}
    objective = StudentObjective(student, recipe, loaded.guidance)
    trained = _fit(objective, loaded, lessons, DISTILL_OPTIMIZER, run, work / f"distill-{kind}", {**made, "schedules": schedules})
    student.lora.load_state_dict(trained)

    base = only_file(loaded.folder / "diffusion_models").stem
    folder = loaded.folder
    if uniform:
        folder = shutil.copytree(folder, work / kind, dirs_exist_ok=True, ignore=LEFT_OUT)
    path = folder / "loras" / f"{base}-few-steps.safetensors"
    path.parent.mkdir(exist_ok=True)
    source = load_adapter(loaded.adapter_path).metadata
    metadata = {
        **describe_training(source, {"distill": {"steps": steps, **made}}),
        "data": loaded.batches.description,
    }
    lora = student.lora.bfloat16()
    deliver(path, lambda place: save_few_steps(place, lora, schedules, metadata))
    return path


def _fit(objective, loaded, batches, optimizer, run, folder, made):
    """`fit` for a stage: what it depends on beside the loop is the model folder, and how it is `made`."""
    identity = {**loaded.identity, **made, "batch": run.batch}
    return fit(objective, batches, optimizer, run, folder, make_accelerator(), identity=identity)


def write(loaded, out, made):
    """Writes `loaded` with its trained adapter as the folder `out`; `made` joins the training's description."""
    source = load_adapter(loaded.adapter_path)
    metadata = {key: value for key, value in source.metadata.items() if key not in ("config", "schedules")}
    metadata |= {**describe_training(metadata, made), "data": loaded.batches.description}
    adapter = loaded.host.adapter.bfloat16()

    def make(folder):
        if folder.resolve() != loaded.folder.resolve():
            shutil.copytree(loaded.folder, folder, dirs_exist_ok=True, ignore=LEFT_OUT)
        save_adapter(folder / "fluxir_adapters" / loaded.adapter_path.name, adapter, metadata)

    deliver(out, make)


def describe_training(metadata, made):
    """The file's description of its training with what was `made` further, and its hash; license and base as they were."""
    configuration = json.dumps({**json.loads(metadata.get("training_config", "{}")), **made}, sort_keys=True)
    kept = {name: metadata[name] for name in ("license", "base_model") if name in metadata}
    digest = hashlib.sha256(configuration.encode()).hexdigest()[:16]
    return {**kept, "training_config": configuration, "training_config_hash": digest}
