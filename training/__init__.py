"""Training, the command line, and FLUX on diffusers. `Restorer` restores images without ComfyUI."""

from typing import TYPE_CHECKING

from . import miniature as miniature  # it registers itself

if TYPE_CHECKING:
    from .diffusers_host.restorer import Restorer

__all__ = ["Restorer"]


def __getattr__(name):
    if name == "Restorer":
        from .diffusers_host.restorer import Restorer

        return Restorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
