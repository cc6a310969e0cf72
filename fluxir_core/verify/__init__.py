from .ensemble import DefaultEnsemble, Ensemble
from .fidelity import Consistency, downsampled_psnr
from .guards import vetoes
from .niqe import NIQE
from .pictures import normalise
from .protocol import Verifier
from .statistics import CoherentGradient, SpectralSlope

__all__ = [
    "NIQE",
    "CoherentGradient",
    "Consistency",
    "DefaultEnsemble",
    "Ensemble",
    "SpectralSlope",
    "Verifier",
    "downsampled_psnr",
    "normalise",
    "vetoes",
]
