"""The optimizers that a configuration can name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimizerConfig:
    """`name` is "adamw", "adamw8bit" (bitsandbytes) or "prodigy", which finds the step size by itself; `learning_rate`
    multiplies it then.

    The learning rate rises over the first `warmup` steps and falls linearly to 0 over the last `decay` share of them.
    Gradients are clipped to the norm `clip`. `average` is the decay of the moving average that is exported.
    """

    name: str = "adamw"
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    beta2: float = 0.999
    warmup: int = 0
    decay: float = 0.0
    clip: float = 1.0
    average: float = 0.999

    def __post_init__(self):
        if self.name not in MAKERS:
            raise ValueError(f"optimizer: name is {self.name!r}; use {', '.join(MAKERS)}.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"optimizer: decay is {self.decay}; use a share of the steps, 0 to 1.")

    def make(self, parameters):
        """The optimizer over `parameters`, in one group. Raises ValueError when its library is not installed."""
        try:
            return MAKERS[self.name](parameters, self)
        except ImportError as error:
            raise ValueError(
                f"optimizer: {self.name} needs a library ({error}); run `pip install -e .[train]` in the pack's folder."
            ) from None

    def learning_rate_at(self, step, steps):
        """The learning rate of step `step` of `steps`."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        falling = (1 - step / steps) / self.decay if self.decay else 1.0
        return self.learning_rate * min(1.0, rising, falling)


def _adamw(parameters, config):
    import torch

    return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay)


def _adamw8bit(parameters, config):
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay)


def _prodigy(parameters, config):
    from prodigyopt import Prodigy

    return Prodigy(
        parameters,
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        use_bias_correction=True,
        safeguard_warmup=True,
    )


MAKERS = {"adamw": _adamw, "adamw8bit": _adamw8bit, "prodigy": _prodigy}
