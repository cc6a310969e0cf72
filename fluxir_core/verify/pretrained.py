"""What verifiers with weights share: files the user placed, strict loading, and the view a 224-pixel model has."""

from pathlib import Path

import torch
from torch.nn import functional as F

from ..image.pixels import normalize

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
MOST_CROPS = 9
HEAD_LAYERS = (0, 2, 4, 6, 7)
"""Where the linear layers of a reward head stand; between them it had dropout while it was trained."""


class VerifierFileError(ValueError):
    """A verifier's file is missing, unreadable or not the public one; the sentence says which, where and whence."""


def find(folder, names, source):
    """The path of `names`, one file name or several alternatives, inside `folder`: the first that is there.

    Raises VerifierFileError, which names the file, the folder and the public `source`, when none is.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise VerifierFileError(f"verify: {' or '.join(names)} is missing; put it into {folder}, from {source}.")


def load_state(file, source):
    """The tensors in `file` by name, floating ones as float32, on the CPU; nothing in the file is executed.

    Reads safetensors, and torch's own format for other suffixes. `position_ids`, which older files hold, are left out.
    Raises VerifierFileError when it is neither, or not a flat dictionary of tensors.
    """
    try:
        if Path(file).suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise VerifierFileError(f"verify: {file} cannot be read as weights ({first}); get it from {source}.") from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise VerifierFileError(f"verify: {file} is not a dictionary of tensors; get it from {source}.")
    kept = {name: value for name, value in state.items() if not name.endswith("position_ids")}
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def build(make, state, file, source):
    """Makes a module that holds exactly the tensors of a file, frozen and in evaluation mode.

    Args:
        make: `make()` describes the module.
        state: {name: tensor}.
        file, source: the file's path and where it comes from, for the error.

    Returns:
        The module.

    Raises:
        VerifierFileError: a tensor is missing, left over or of another shape.
    """
    with torch.device("meta"):
        module = make()
    expected = module.state_dict()
    missing, further = [k for k in expected if k not in state], [k for k in state if k not in expected]
    odd = [k for k in expected if k in state and expected[k].shape != state[k].shape]
    for faulty, what in ((missing, "lacks"), (further, "holds the unknown"), (odd, "has another shape of")):
        if faulty:
            named = faulty[0] if len(faulty) == 1 else f"{faulty[0]} and {len(faulty) - 1} more"
            raise VerifierFileError(f"verify: {file} {what} {named}; get the file from {source}.")
    module.load_state_dict(state, assign=True)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if name == "position_ids" and buffer.is_meta:
                setattr(owner, name, torch.arange(buffer.shape[-1]).expand(buffer.shape).clone())
    return module.eval().requires_grad_(False)


def build_head(state, file, source):
    """The reward head of ImageReward and of LAION's predictor: five linear layers, widths as in `state`, no activation.

    `state` has the keys `layers.{0, 2, 4, 6, 7}.{weight, bias}`; the head maps (B, features) to (B, 1).
    """

    def make():
        layers: list[torch.nn.Module] = [torch.nn.Identity() for _ in range(HEAD_LAYERS[-1] + 1)]
        for index in HEAD_LAYERS:
            layers[index] = torch.nn.Linear(*reversed(state[f"layers.{index}.weight"].shape))
        return torch.nn.Sequential(*layers)

    wanted = {f"layers.{index}.{kind}" for index in HEAD_LAYERS for kind in ("weight", "bias")}
    if set(state) != wanted or any(state[name].ndim != (2 if name.endswith("weight") else 1) for name in wanted):
        raise VerifierFileError(f"verify: {file} does not hold five linear layers, `layers.0` to `layers.7`, as {source}.")
    return build(make, {name.removeprefix("layers."): value for name, value in state.items()}, file, source)


def crops(images, side):
    """Square views of `images` (B, 3, H, W) in [0, 1] that together cover them: (B, N, 3, side, side) in [0, 1].

    The short side is resized to `side` (bicubic, antialiased, as CLIP's own preparation does); along the longer one
    an odd number of crops stands evenly from end to end, the middle one being CLIP's center crop, so that the ends
    of the image count too. N is 1 for a square and at most 9: images longer than nine squares have gaps.
    """
    height, width = images.shape[2:]
    short = min(height, width)
    size = [int(side * extent / short) for extent in (height, width)]
    if size != [height, width]:
        images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    spare = max(size) - side
    count = min(-(-max(size) // side) | 1, MOST_CROPS)
    starts = [round(index * spare / max(1, count - 1)) for index in range(count)]
    axis = 2 if height > width else 3
    return torch.stack([images.narrow(axis, start, side) for start in starts], 1)


def score_crops(images, side, module, score):
    """Scores images by the mean over each one's crops.

    Args:
        images: (B, 3, H, W) in [0, 1].
        side: of a crop, in pixels.
        module: on whose device and in whose precision `score` computes.
        score: takes all crops of all images in one batch, (M, 3, side, side), normalized with CLIP's mean and deviation, and
            returns (M,).

    Returns:
        (B,) on the images' device; -inf where an image is not finite.
    """
    images, finite = normalize(images)
    views = crops(images, side)
    mean, deviation = (views.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_DEVIATION))
    views = ((views - mean) / deviation).to(next(module.parameters()))
    scores = score(views.flatten(0, 1)).float().unflatten(0, views.shape[:2]).mean(1)
    return torch.where(finite, scores.to(images.device), -torch.inf)
