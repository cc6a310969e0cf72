"""What few-step students reach on held-out photos under every task, against the slow model they learned from."""

import time

import torch

from ...fluxir_core.degrade.tasks import TASKS
from ...fluxir_core.image.quality import quality
from ..miniature.held_out import held_out_photos
from ..recipes.few_step_schedules import COUNTS, uniform_schedules

STRENGTH, STEPS = 0.5, 20
"""Of every task; of the slow model."""


def evaluate_few_steps(teacher, model, control=None, tasks=tuple(TASKS)):
    """Restores the held-out photos under every task, each from seed 0, by few steps and by many.

    Args:
        teacher: Restorer of the adapter before reinforcement.
        model: Restorer of the reinforced one, with its student.
        control: Restorer with a student that learned the uniform schedules instead; None to leave it out.
        tasks: names of TASKS.

    Returns:
        Rows {task, photo, method, nfe, seconds, psnr, ssim, gmsd}; `seconds` are of one photo in the batch, with encoding and
        decoding.
    """
    photos = held_out_photos()
    names, clean = list(photos), torch.stack(list(photos.values()))
    methods: dict = {"teacher": (teacher, False, None), "reinforced": (model, False, None)}
    for steps, uniform in uniform_schedules(COUNTS).items():
        methods[f"not distilled, {steps} uniform"] = model, False, uniform
        methods[f"not distilled, {steps} optimal"] = model, False, model.schedules[steps]
        if control:
            methods[f"student, {steps} uniform"] = control, True, uniform
        methods[f"student, {steps} optimal"] = model, True, model.schedules[steps]
    rows = []
    for task in tasks:
        degraded = TASKS[task](clean, STRENGTH, list(range(len(clean))))
        rows += _rows(names, task, "degraded", 0, 0.0, quality(degraded, clean))
        for method, (restorer, student, sigmas) in methods.items():
            restored, seconds = _timed(restorer, student, sigmas, degraded)
            nfe = len(sigmas) - 1 if sigmas else STEPS
            rows += _rows(names, task, method, nfe, seconds, quality(restored, clean))
    return rows


def _timed(restorer, student, sigmas, degraded):
    """(restored images, seconds for each of them)."""
    started = time.perf_counter()
    seeds = [0] * len(degraded)
    if student:
        with restorer.student_enabled():
            restored = restorer.restore(degraded, seeds, sigmas=sigmas)
    else:
        restored = restorer.restore(degraded, seeds, STEPS, sigmas=sigmas)
    return restored, (time.perf_counter() - started) / len(degraded)


def _rows(names, task, method, nfe, seconds, scores):
    return [
        {
            "task": task,
            "photo": photo,
            "method": method,
            "nfe": nfe,
            "seconds": seconds,
            **{metric: values[i].item() for metric, values in scores.items()},
        }
        for i, photo in enumerate(names)
    ]


def few_step_gates(rows):
    """FLUX-IR's goals as {sentence: (value in dB, reached)}, means over all tasks and photos."""
    mean = {method: average(rows, "psnr", method=method) for method in dict.fromkeys(row["method"] for row in rows)}
    gates = {}

    def gate(sentence, value, least):
        gates[sentence] = (value, value > least)

    gate("reinforced over teacher, above 0 dB", mean["reinforced"] - mean["teacher"], 0)
    student, teacher = mean["student, 4 optimal"], mean["teacher"]
    gate("student at 4 optimal steps over the teacher at 20, above -0.2 dB", student - teacher, -0.2)
    for steps in COUNTS:
        for kind in ("not distilled", "student"):
            if (rival := f"{kind}, {steps} uniform") in mean:
                gate(f"{kind}, {steps} optimal over uniform, above 0 dB", mean[f"{kind}, {steps} optimal"] - mean[rival], 0)
    return gates


def average(rows, metric, **where):
    """Mean of `metric` over the rows in which all of `where` holds."""
    values = [row[metric] for row in rows if all(row[name] == value for name, value in where.items())]
    return sum(values) / len(values)


def few_step_table(rows):
    """Markdown: methods over tasks; their means, with NFE and seconds; the goals."""
    tasks, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "method"))
    photos = len({row["photo"] for row in rows})
    lines = [
        f"PSNR in dB / SSIM / GMSD, means over {photos} held-out crops of 256 pixels, seed 0, tasks at strength {STRENGTH}.",
        "",
    ]
    lines += ["| | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method in methods:
        cells = (
            "{:.2f} / {:.3f} / {:.3f}".format(*(average(rows, m, method=method, task=task) for m in ("psnr", "ssim", "gmsd")))
            for task in tasks
        )
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", "Means over the tasks; seconds for one photo of a batch, with encoding and decoding.", ""]
    lines += ["| | PSNR | SSIM | GMSD | NFE | seconds |", "|---" * 6 + "|"]
    for method in methods:
        psnr, ssim, gmsd, nfe, seconds = (
            average(rows, metric, method=method) for metric in ("psnr", "ssim", "gmsd", "nfe", "seconds")
        )
        lines.append(f"| {method} | {psnr:.2f} | {ssim:.3f} | {gmsd:.3f} | {nfe:.0f} | {seconds:.2f} |")
    lines += ["", "| goal | measured | |", "|---|---|---|"]
    for sentence, (value, reached) in few_step_gates(rows).items():
        lines.append(f"| {sentence} | {value:+.3f} | {'reached' if reached else 'missed'} |")
    return "\n".join(lines)
