"""LAION's improved aesthetic predictor (Schuhmann, 2022): a regression of people's ratings on CLIP's image features."""

from pathlib import Path

import torch
from torch.nn import functional as F

from .clip_score import load_clip
from .pretrained import VerifierFileError, build_head, find, load_state, score_crops

SOURCE = "christophschuhmann/improved-aesthetic-predictor on GitHub, sac+logos+ava1-l14-linearMSE.pth"


class AestheticPredictor:
    """The predicted rating, about 1 to 10, of an image's crops (see `crops`), averaged; it judges content and style.

    It sees 224 pixels a side, so noise and blocks escape it: rank by it only beside scores that see them.
    """

    name = "aesthetic"

    def __init__(self, model_folder, head_file):
        """`model_folder`: config.json and model.safetensors of openai/clip-vit-large-patch14 in transformers' form;
        `head_file`: the head sac+logos+ava1-l14-linearMSE.pth, or the same tensors as safetensors.

        Raises VerifierFileError when a file is missing or has another layout, or the two do not fit.
        """
        head_file = find(Path(head_file).parent, Path(head_file).name, SOURCE)
        head = build_head(load_state(head_file, SOURCE), head_file, SOURCE)
        vision, self.side = load_clip(model_folder, text=False)
        given, wanted = vision.config.projection_dim, head[0].in_features
        if given != wanted:
            raise VerifierFileError(
                f"verify: {head_file} rates {wanted} features but the model in {model_folder} gives {given}; "
                "use openai/clip-vit-large-patch14."
            )
        self.module = torch.nn.ModuleDict({"vision": vision, "head": head})

    @torch.no_grad()
    def __call__(self, images, reference=None):
        def score(views):
            features = self.module["vision"](pixel_values=views).image_embeds
            return self.module["head"](F.normalize(features, dim=-1))[:, 0]

        return score_crops(images, self.side, self.module, score)
