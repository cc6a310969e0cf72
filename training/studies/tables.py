"""The tables of measured results: each function measures, and returns its rows and Markdown."""

from dataclasses import replace

from ...fluxir_core.degrade.presets import EVALUATION

METHODS = ("degraded", "autoencoder alone", "peer", "one step", "restored", "with give-back", "ceiling")


def miniature(model, photos=None):
    """(rows, Markdown) of `evaluate` on the model folder `model`: every method, tone and detail, steps, photos and gates."""
    from ..diffusers_host.restorer import Restorer
    from ..miniature.evaluate import SEEDS, evaluate, gates, mean_over_photos, spread_over_seeds

    restorer = Restorer(model)
    rows = evaluate(restorer, photos=photos)
    degradations = list(dict.fromkeys(row["degradation"] for row in rows))
    crops = len({row["photo"] for row in rows})
    lines = [f"Means over {crops} held-out crops of 256 pixels and {len(SEEDS)} seeds, 20 steps: PSNR in dB / SSIM / GMSD.", ""]
    lines += _head("", METHODS)
    for degradation in degradations:
        lines.append(_line(degradation, [_cell(rows, degradation, method, mean_over_photos) for method in METHODS]))

    lines += ["", "The error apart, in 8-bit levels: tone (means of squares of 16 pixels) / detail (the rest).", ""]
    lines += _head("", METHODS)
    for degradation in degradations:
        both = [[mean_over_photos(rows, degradation, m, part) for part in ("tone", "detail")] for m in METHODS]
        lines.append(_line(degradation, ["{:.1f} / {:.1f}".format(*own) for own in both]))

    counts = (1, 2, 4, 8, 20)
    lines += ["", f"Restored by sampling steps, {len(SEEDS)} seeds: PSNR in dB / GMSD (the seeds' spread in dB).", ""]
    lines += _head("", counts)
    by_steps = {n: rows if n == 20 else evaluate(restorer, steps=n, photos=photos, controls=False) for n in counts}
    for degradation in degradations:
        cells = [
            "{:.2f} / {:.3f} ({:.2f})".format(
                *(mean_over_photos(by_steps[n], degradation, "restored", metric) for metric in ("psnr", "gmsd")),
                spread_over_seeds(by_steps[n], degradation),
            )
            for n in counts
        ]
        lines.append(_line(degradation, cells))

    lines += ["", *_head("photo", [f"{name}: degraded -> restored" for name in degradations])]
    for photo in dict.fromkeys(row["photo"] for row in rows):
        own = [row for row in rows if row["photo"] == photo]
        both = [[mean_over_photos(own, name, method, "psnr") for method in ("degraded", "restored")] for name in degradations]
        lines.append(_line(photo, ["{:.2f} -> {:.2f}".format(*pair) for pair in both]))

    checked = gates(rows)
    for degradation in degradations:
        few, many = (mean_over_photos(by_steps[n], degradation, "restored", "psnr") for n in (4, 20))
        checked[f"{degradation}: 4 steps within 0.2 dB of 20"] = (few - many, abs(few - many) <= 0.2)
    lines += ["", *_head("gate", ["measured", ""])]
    lines += [_line(gate, [f"{value:+.3f}", "reached" if passed else "missed"]) for gate, (value, passed) in checked.items()]
    return rows, "\n".join(lines)


def _head(first, names):
    return [_line(first, names), "|---" * (len(names) + 1) + "|"]


def _line(first, cells):
    return f"| {first} | " + " | ".join(map(str, cells)) + " |"


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


def ablation(work, photos, steps):
    """(rows, Markdown) of three adapters trained for `steps` from the same start: whole, without f(u), without the pixel loss."""
    from ..diffusers_host.restorer import Restorer
    from ..miniature import export
    from ..miniature.evaluate import evaluate
    from ..miniature.recipe import RECIPE, MiniatureSize, train_adapter, trained_base

    variants = {
        "f(u) and pixel loss (the paper)": RECIPE,
        "logit-normal timesteps instead of f(u)": replace(RECIPE, epsilon=None),
        "without the pixel loss": replace(RECIPE, alpha=0.0),
    }
    size = MiniatureSize()
    images, autoencoder, transformer = trained_base(size, work, photos)
    rows = []
    for i, (name, recipe) in enumerate(variants.items()):
        folder = work / f"ablation-{steps}-{i}"
        adapter = train_adapter(images, autoencoder, transformer, recipe, replace(size, adapter_steps=steps), folder)
        export.write(folder, autoencoder, transformer, adapter, {"ablation": name}, images.description)
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
    from ..recipes.config import CONFIGS, RECIPES
    from ..recipes.memory_plan import plan_memory
    from .bench_training import bench_training

    names = [f"{recipe}{size}" for size in ("-24gb", "") for recipe in RECIPES]
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
        config = RECIPES[name.split("-")[0]].load(CONFIGS / f"{name}.yaml")
        planned = plan_memory(config)
        rows.append({"configuration": name, **planned})
        cells = " | ".join(f"{planned[f'{part}_gb']:.1f}" for part in parts)
        largest = "{1} x {0}".format(*max(config.data.sizes, key=lambda size: size[0] * size[1]))
        lines.append(
            f"| {name} ({planned['precision']}) | {largest}, {config.run.micro_batch} | {cells} | {planned['tflop_per_step']:.0f} |"
        )
    lessons = {row["configuration"]: row for row in rows if "lessons_gb" in row}
    lines += [
        "",
        "Lessons of a student, made once: "
        + "; ".join(
            f"{name} {row['lessons_gb']:.1f} GB of disk, {row['lessons_hours_at_100_tflop_per_s']:.0f} hours at 100 TFLOP/s"
            for name, row in lessons.items()
        )
        + ".",
    ]
    lines += ["", "Peak memory on the miniature, planned over measured: "]
    for recipe in RECIPES:
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


def taste(model):
    """(rows, Markdown) of `simulated_artists.measure` on the model folder `model`."""
    from ..diffusers_host.restorer import Restorer
    from .simulated_artists import measure, table

    rows = measure(Restorer(model))
    return rows, table(rows)


def frontier(development, samples):
    """(rows, Markdown) of `frontier.measure`, on the mixtures that presets were chosen on where `development`."""
    from .frontier import DEVELOPMENT, HELD_OUT, measure, table

    rows = measure(DEVELOPMENT if development else HELD_OUT, samples=samples)
    return rows, table(rows)


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
