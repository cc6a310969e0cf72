"""The tables of measured results: each function measures, and returns its rows and Markdown."""

from dataclasses import replace

from ...fluxir_core.degrade.presets import EVALUATION

METHODS = ("degraded", "restored", "adapter off", "shuffled", "ceiling")


def miniature(model):
    """(rows, Markdown) of `evaluate` on the model folder `model`, with the sampling steps' effect and the gates."""
    from ..diffusers_host.restorer import Restorer
    from ..miniature.evaluate import SEEDS, evaluate, gates, mean_over_photos

    restorer = Restorer(model)
    rows = evaluate(restorer)
    lines = [
        f"Means over {len({row['photo'] for row in rows})} held-out crops of 256 pixels and {len(SEEDS)} seeds, 20 steps: "
        "PSNR in dB / SSIM / GMSD.",
        "",
        "| | " + " | ".join(METHODS) + " |",
        "|---" * (len(METHODS) + 1) + "|",
    ]
    for degradation in EVALUATION:
        cells = (_cell(rows, degradation, method, mean_over_photos) for method in METHODS)
        lines.append(f"| {degradation} | " + " | ".join(cells) + " |")

    lines += ["", "The restored photos by sampling steps, seed 0: PSNR in dB / GMSD.", ""]
    counts = (1, 2, 4, 8, 20)
    lines += ["| | " + " | ".join(map(str, counts)) + " |", "|---" * (len(counts) + 1) + "|"]
    by_steps = {steps: evaluate(restorer, steps=steps, seeds=SEEDS[:1]) for steps in counts}
    for degradation in EVALUATION:
        cells = (
            "{:.2f} / {:.3f}".format(*(mean_over_photos(by_steps[n], degradation, "restored", m) for m in ("psnr", "gmsd")))
            for n in counts
        )
        lines.append(f"| {degradation} | " + " | ".join(cells) + " |")

    lines += ["", "| photo | " + " | ".join(f"{name}: degraded -> restored" for name in EVALUATION) + " |"]
    lines += ["|---" * (len(EVALUATION) + 1) + "|"]
    for photo in dict.fromkeys(row["photo"] for row in rows):
        own = [row for row in rows if row["photo"] == photo]
        cells = (
            " -> ".join(f"{mean_over_photos(own, name, method, 'psnr'):.2f}" for method in ("degraded", "restored"))
            for name in EVALUATION
        )
        lines.append(f"| {photo} | " + " | ".join(cells) + " |")

    lines += ["", "| gate | measured | |", "|---|---|---|"]
    lines += [f"| {gate} | {value:+.3f} | {'reached' if passed else 'missed'} |" for gate, (value, passed) in gates(rows).items()]
    return rows, "\n".join(lines)


def _cell(rows, degradation, method, mean):
    psnr, ssim, gmsd = (mean(rows, degradation, method, metric) for metric in ("psnr", "ssim", "gmsd"))
    return f"{psnr:.2f} / {ssim:.3f} / {gmsd:.3f}"


def _restored_table(rows, key):
    """Markdown: a line for each value of `key` in `rows`, a column for each degradation."""
    from ..miniature.evaluate import mean_over_photos

    lines = ["Restored photos, seed 0, PSNR in dB / SSIM / GMSD.", ""]
    lines += [f"| {key} | " + " | ".join(EVALUATION) + " |", "|---" * (len(EVALUATION) + 1) + "|"]
    for value in dict.fromkeys(row[key] for row in rows):
        own = [row for row in rows if row[key] == value]
        lines.append(f"| {value} | " + " | ".join(_cell(own, d, "restored", mean_over_photos) for d in EVALUATION) + " |")
    return "\n".join(lines)


def ablation(work, steps):
    """(rows, Markdown) of three adapters trained for `steps` from the same start: whole, without f(u), without the pixel loss."""
    from ..diffusers_host.restorer import Restorer
    from ..miniature import export
    from ..miniature.evaluate import evaluate
    from ..miniature.recipe import RECIPE, MiniatureSize, load_trained, train_adapter

    variants = {
        "f(u) and pixel loss (the paper)": RECIPE,
        "logit-normal timesteps instead of f(u)": replace(RECIPE, epsilon=None),
        "without the pixel loss": replace(RECIPE, alpha=0.0),
    }
    plan = MiniatureSize()
    bank, autoencoder, transformer = load_trained(work, plan)
    rows = []
    for i, (name, recipe) in enumerate(variants.items()):
        folder = work / f"ablation-{steps}-{i}"
        adapter = train_adapter(bank, autoencoder, transformer, recipe, replace(plan, adapter_steps=steps), folder)
        export.write(folder, autoencoder, transformer, adapter, {"ablation": name})
        rows += [{"variant": name, **row} for row in evaluate(Restorer(folder), seeds=(0,))]
    return rows, f"Each adapter trained for {steps} steps. " + _restored_table(rows, "variant")


def curve(models):
    """(rows, Markdown) of `evaluate`, one seed, for each model folder of `models` {label: folder}."""
    from ..diffusers_host.restorer import Restorer
    from ..miniature.evaluate import evaluate

    rows = [{"model": label, **row} for label, folder in models.items() for row in evaluate(Restorer(folder), seeds=(0,))]
    return rows, _restored_table(rows, "model")


def cost(size):
    """(rows, Markdown) of `bench_adapter`, with a ControlNet for comparison, and of `bench_condition` at `size`."""
    from .bench_model_call import bench_adapter, bench_condition

    rows, lines = [bench_adapter(size, controlnet=True), bench_condition(size)], []
    for measured, rank in zip(rows, ("SE rank", "LoRA rank")):
        lines += [
            f"One model call at {measured['pixels']} pixels a side, {size} dimensions with random weights, {rank} "
            f"{measured['rank']}, {measured['dtype']}, {measured['device']}: median of {measured['repeats']} rounds, in turns; "
            f"peak memory of the run {measured['peak_gb']} GB.",
            "",
            "| | seconds | ratio to bare |",
            "|---|---|---|",
        ]
        lines += [f"| {name} | {measured['seconds'][name]:.4f} | {ratio:.3f} |" for name, ratio in measured["ratio"].items()]
        lines.append("")
    return rows, "\n".join(lines[:-1])


def tiles(model):
    """(rows, Markdown) of `bench_tiles.measure` on the model folder `model`."""
    from ..diffusers_host.restorer import Restorer
    from .bench_tiles import measure, table

    rows, choices = measure(Restorer(model))
    return [*rows, *choices], table(rows, choices)


def training():
    """(rows, Markdown) of the plans of the shipped configurations for FLUX.1-dev, and of the miniature's beside measured runs."""
    from ..recipes.config import CONFIGS, FluxIRConfig, UMMFConfig
    from ..recipes.memory_plan import plan_memory
    from .bench_training import bench_training

    names = ("fluxir-24gb", "ummf-24gb", "fluxir", "ummf")
    kinds = {"fluxir": FluxIRConfig, "ummf": UMMFConfig}
    parts = ("base", "adapter", "average", "optimizer", "gradients", "activations", "peak")
    rows, lines = (
        [],
        [
            "What one process needs, planned for FLUX.1-dev, in GB, and the operations of a whole step.",
            "",
            "| configuration | largest image, how many at once | " + " | ".join(parts) + " | TFLOP a step |",
            "|---" * (len(parts) + 3) + "|",
        ],
    )
    for name in names:
        config = kinds[name.split("-")[0]].load(CONFIGS / f"{name}.yaml")
        planned = plan_memory(config)
        rows.append({"configuration": name, **planned})
        cells = " | ".join(f"{planned[f'{part}_gb']:.1f}" for part in parts)
        largest = "{1} x {0}".format(*max(config.data.sizes, key=lambda size: size[0] * size[1]))
        lines.append(
            f"| {name} ({planned['precision']}) | {largest}, {config.run.micro_batch} | {cells} | {planned['tflop_per_step']:.0f} |"
        )
    lines += ["", "Peak memory on the miniature, planned over measured: "]
    for recipe in kinds:
        measured = bench_training(CONFIGS / f"{recipe}-miniature.yaml", recipe, steps=2)
        rows.append(measured)
        lines[-1] += f"{recipe} {measured['planned_over_measured']:.3f} ({measured['peak_gb']:.2f} GB measured), "
    lines[-1] = lines[-1].rstrip(", ") + "."
    return rows, "\n".join(lines)


def tts(model, degradations):
    """(rows, Markdown) of the searches on the mixture, and on the model folder `model` over the held-out photos."""
    from ..diffusers_host.restorer import Restorer
    from .bench_search import on_gaussian_mixture, on_miniature, table

    mixture = {dims: on_gaussian_mixture(dims) for dims in (16, 64)}
    rows = on_miniature(Restorer(model), degradations)
    return [*({"dims": dims, **row} for dims in mixture for row in mixture[dims]), *rows], table(mixture, rows)


def fusion(work, steps):
    """(rows, Markdown) of `fusion.compare` after `steps`, and of the bundled LoRA beside the bundled FluxIR adapter."""
    from ..diffusers_host.restorer import Restorer
    from ..miniature.evaluate import evaluate
    from ..recipes.config import CONFIGS, UMMFConfig
    from .fusion import compare

    config = UMMFConfig.load(CONFIGS / "ummf-miniature.yaml")
    rows = compare(config, work, steps)
    counts = {row["variant"]: row["parameters"] for row in rows}
    bundled = [
        {"variant": f"bundled {name}", **row}
        for name, adapter in (("UMMF LoRA", "ummf"), ("FluxIR adapter", "fluxir"))
        for row in evaluate(Restorer("miniature", adapter=adapter), seeds=(0,))
    ]
    trained = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    table = _restored_table([*rows, *bundled], "variant")
    return [*rows, *bundled], f"Each variant trained for {steps} steps; trainable parameters: {trained}. {table}"


def few_steps(teacher, model, control):
    """(rows, Markdown) of `evaluate_few_steps` on the model folders; `control` may be None."""
    from ..diffusers_host.restorer import Restorer
    from .bench_few_steps import evaluate_few_steps, few_step_table

    rows = evaluate_few_steps(Restorer(teacher), Restorer(model), control and Restorer(control))
    return rows, few_step_table(rows)
