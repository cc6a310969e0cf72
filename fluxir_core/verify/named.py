"""Verifiers by name, where no graph connects them: what needs no weights, the paper's three, and any metric of pyiqa."""

from pathlib import Path

from .aesthetic import AestheticPredictor
from .clip_score import CLIPScore
from .ensemble import DefaultEnsemble, Ensemble
from .image_reward import ImageReward
from .selection import OWN, metric_named

CLIP_FOLDER, REWARD_FOLDER, HEAD_FILE = "clip-vit-large-patch14", "ImageReward", "sac+logos+ava1-l14-linearMSE.pth"
"""What the public files of ResFlow-Tuner's verifiers (arXiv 2603.22027) are called in a folder of verifiers."""
MADE = {
    "clip_score": lambda folder, prompt: CLIPScore(folder / CLIP_FOLDER, prompt),
    "aesthetic": lambda folder, prompt: AestheticPredictor(folder / CLIP_FOLDER, folder / HEAD_FILE),
    "image_reward": lambda folder, prompt: ImageReward(folder / REWARD_FOLDER, prompt),
}
PROMPTED = ("clip_score", "image_reward")
"""Of these, the ones that compare an image with a text."""
DEFAULT = "natural_image"
NAMED = (DEFAULT, *OWN, *MADE)


def verifier_named(name, folder, prompt="", device="cpu"):
    """Makes a verifier by its name.

    Args:
        name: one of NAMED or a metric of pyiqa.
        folder: where the weights of the paper's three are looked for.
        prompt: what the image shows; those of PROMPTED need one.
        device: where it computes.

    Returns:
        The verifier.

    Raises:
        ValueError: the name is unknown, or a library, weights or the prompt are missing; one sentence.
    """
    if name == DEFAULT:
        return DefaultEnsemble()
    if name not in MADE:
        return metric_named(name, device)
    try:
        verifier = MADE[name](Path(folder), prompt)
    except ImportError as error:
        raise ValueError(
            f"the verifier {name} needs a library ({error}); run `pip install -e .[train]` in the pack's folder."
        ) from None
    verifier.module.to(device)
    return verifier


def ensemble_named(names, folder, prompt="", device="cpu"):
    """Makes an ensemble of verifiers by their names; the default alone is itself.

    Args:
        names: of the verifiers; one that is given twice counts once.
        folder, prompt, device: as for `verifier_named`.

    Returns:
        An Ensemble.

    Raises:
        ValueError: as `verifier_named`, and where there is no name.
    """
    members = [verifier_named(name, folder, prompt, device) for name in dict.fromkeys(names)]
    return members[0] if len(members) == 1 and isinstance(members[0], Ensemble) else Ensemble(members)
