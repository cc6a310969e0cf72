from .path import clean_estimate, interpolate, sample_logit_normal, sample_timesteps
from .sampling import euler, flux_sigmas

__all__ = ["clean_estimate", "euler", "flux_sigmas", "interpolate", "sample_logit_normal", "sample_timesteps"]
