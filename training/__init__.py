"""Training, the command line, and FLUX on diffusers. `Restorer` restores images without ComfyUI."""

from . import miniature as miniature  # it registers itself


def __getattr__(name):
    if name == "Restorer":
        from .diffusers_host.restorer import Restorer

        return Restorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
