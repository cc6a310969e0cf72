"""Makes the demo's two photos: scikit-image's cat (CC0, by Stefan van der Walt) and the same with noise of sigma 30.
Run once; the images are committed.

    python -m comfyui_fluxir.demo.photo
"""

import numpy as np
import torch
from skimage import data

from ..fluxir_core.degrade.presets import degrade_named
from ..fluxir_core.image.files import save_image
from .run import DEGRADED, ORIGINAL

TOP, LEFT, SIZE = 30, 100, 256


def main():
    photo = np.array(data.chelsea()[TOP : TOP + SIZE, LEFT : LEFT + SIZE])
    original = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    save_image(original, ORIGINAL)
    save_image(degrade_named(original, "noise", seed=0), DEGRADED)


if __name__ == "__main__":
    main()
