"""A training run's configuration: YAML files with the fields of typed dataclasses."""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import ClassVar, get_args, get_origin

import yaml

from ...fluxir_core.degrade.presets import check_shares
from ...fluxir_core.ummf.mode import ConditionMode
from ..engine.fit import RunConfig
from ..engine.optimizers import OptimizerConfig
from .distill import DistillRecipe
from .fluxir import FluxIRRecipe
from .reinforce import ReinforceRecipe
from .ummf import UMMFRecipe

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


PRECISIONS = ("float32", "bf16", "fp8", "nf4")


@dataclass(frozen=True)
class BaseConfig:
    """The frozen model: its `folder` (or "miniature"), in the `precision` "float32", "bf16", "fp8" (diffusers' layerwise
    casting) or "nf4" (bitsandbytes). Gradient checkpointing trades a quarter of the speed for most of the activations."""

    folder: str
    precision: str = "bf16"
    gradient_checkpointing: bool = True

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"base: precision is {self.precision!r}; use {', '.join(PRECISIONS)}.")


@dataclass(frozen=True)
class DataConfig:
    """The images: a folder of photos, or of shards that `fluxir fluxgen` made, or "miniature".

    Each is cropped to one of `buckets` ("width x height" in pixels, multiples of 16) that fits inside it, at the place
    `crop` "center" or "random". An image without a degraded partner is degraded by the shares of `degradation`
    (`fluxir_core.degrade.presets.degrade_by_shares`) in `versions` ways, each encoded once and cached; with `cache` off it is cropped,
    degraded and encoded anew at every step. `prompts` uses the images' own prompts, else
    the empty one; either has `text_tokens` tokens. `held_out` images are kept from training, for validation. `photos` is for
    "miniature": the folder its photographs are fetched to; without it scikit-image's serve alone.
    """

    images: str
    buckets: list[str] = field(default_factory=lambda: ["1024x768", "768x768", "512x768"])
    crop: str = "center"
    degradation: dict[str, float] = field(default_factory=lambda: {"mixture": 1.0})
    versions: int = 1
    cache: bool = True
    prompts: bool = False
    text_tokens: int = 512
    held_out: int = 4
    photos: str | None = None

    def __post_init__(self):
        if self.crop not in ("center", "random"):
            raise ValueError(f"data: crop is {self.crop!r}; use 'center' or 'random'.")
        for name, least in (("versions", 1), ("text_tokens", 1), ("held_out", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"data: {name} is {getattr(self, name)}; use {least} or more.")
        try:
            check_shares(self.degradation)
        except ValueError as error:
            raise ValueError(f"data: degradation: {error}") from None
        if not self.buckets:
            raise ValueError("data: buckets is empty; name at least one size, such as 512x768.")
        for bucket in self.buckets:
            self._size(bucket)

    @property
    def sizes(self):
        """The buckets as (height, width)."""
        return [self._size(bucket) for bucket in self.buckets]

    @staticmethod
    def _size(bucket):
        width, _, height = str(bucket).partition("x")
        if not (width.isdigit() and height.isdigit()) or int(width) % 16 or int(height) % 16 or "0" in (width, height):
            raise ValueError(f"data: the bucket {bucket!r} is no size; write width x height in multiples of 16, such as 512x768.")
        return int(height), int(width)


@dataclass(frozen=True)
class FluxIRAdapterConfig:
    """The adapter to train; the fields are AdapterConfig's. `rank` null makes full-rank SE layers."""

    rank: int | None = 32
    input: str = "hidden"
    inject: str = "after"
    guidance: float = 4.0


@dataclass(frozen=True)
class LoRAConfig:
    """The LoRA to train, and how it reads images (fluxir_core/ummf/mode.py)."""

    rank: int = 16
    mode: ConditionMode = ConditionMode()


@dataclass(frozen=True)
class BesideConfig:
    """What is trained beside the adapter that a run starts from: a LoRA of `rank` on the base, the adapter being frozen; None
    trains that adapter itself."""

    rank: int | None = None

    def __post_init__(self):
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"adapter: rank is {self.rank}; use 1 or more.")


@dataclass(frozen=True)
class TrainConfig:
    """A run. `start` is an adapter's or LoRA's file that it goes on from, whose form then replaces `adapter`'s; `keep` of its
    weights stay in what is written, and 1 - keep are the trained ones (WiSE-FT). `log` names accelerate's trackers, such as
    tensorboard and wandb.
    """

    starts_new: ClassVar[bool] = True
    """Whether weights are trained from nothing where there is no `start`; else the run starts from the base folder's adapter."""

    base: BaseConfig
    data: DataConfig
    run: RunConfig
    adapter: FluxIRAdapterConfig | LoRAConfig | BesideConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    recipe: FluxIRRecipe | UMMFRecipe | ReinforceRecipe | DistillRecipe = FluxIRRecipe()
    start: str | None = None
    keep: float = 0.0
    log: list[str] = field(default_factory=lambda: ["tensorboard"])

    def __post_init__(self):
        if not 0 <= self.keep < 1 or (self.keep and self.starts_new and not self.start):
            raise ValueError(f"keep is {self.keep}; use 0 or more, below 1, and more than 0 with a start only.")
        if self.keep and isinstance(self.adapter, BesideConfig) and self.adapter.rank is not None:
            raise ValueError(f"keep is {self.keep}, but a LoRA beside the start begins with nothing; leave keep out.")
        if self.run.sharding == "fsdp" and not self.starts_new:
            raise ValueError("run: sharding is 'fsdp', which this recipe does not run under; use 'ddp'.")
        if self.run.sharding == "fsdp" and (self.base.precision in ("fp8", "nf4") or self.optimizer.name != "adamw"):
            raise ValueError(
                f"run: sharding fsdp does not go with precision {self.base.precision} and {self.optimizer.name}; "
                "use bf16 or float32 with adamw, or ddp."
            )

    @classmethod
    def load(cls, path):
        """Reads a YAML file with the fields' names. Raises ValueError on one that is missing, unknown or of another type."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            mark = getattr(error, "problem_mark", None)
            reason = getattr(error, "strerror", None) or (f"line {mark.line + 1} is no YAML" if mark else "it is no YAML")
            raise ValueError(f"{path} cannot be read as a configuration ({reason}); see the files in {CONFIGS}.") from None
        return _typed(cls, values, Path(path).name)

    def identity(self):
        """What a run cannot change on the way: all but its length, its hardware and its log."""
        values = asdict(self)
        run = {name: values["run"][name] for name in ("batch", "seed")}
        values["base"].pop("gradient_checkpointing")
        return {**{name: value for name, value in values.items() if name not in ("log", "keep")}, "run": run}

    def metadata(self):
        """The configuration as the strings that an exported file carries."""
        text = json.dumps(asdict(self), sort_keys=True)
        return {"training_config": text, "training_config_hash": hashlib.sha256(text.encode()).hexdigest()[:16]}


@dataclass(frozen=True)
class FluxIRConfig(TrainConfig):
    """`fluxir train fluxir`."""

    adapter: FluxIRAdapterConfig = FluxIRAdapterConfig()
    recipe: FluxIRRecipe = FluxIRRecipe()


@dataclass(frozen=True)
class UMMFConfig(TrainConfig):
    """`fluxir train ummf`."""

    adapter: LoRAConfig = LoRAConfig()
    recipe: UMMFRecipe = UMMFRecipe()


@dataclass(frozen=True)
class ReinforceConfig(TrainConfig):
    """`fluxir train reinforce`."""

    starts_new: ClassVar[bool] = False
    adapter: BesideConfig = BesideConfig()
    recipe: ReinforceRecipe = ReinforceRecipe()


@dataclass(frozen=True)
class DistillConfig(TrainConfig):
    """`fluxir train distill` and `fluxir schedule`."""

    starts_new: ClassVar[bool] = False
    adapter: BesideConfig = BesideConfig(16)
    recipe: DistillRecipe = DistillRecipe()

    def __post_init__(self):
        super().__post_init__()
        if self.adapter.rank is None:
            raise ValueError("adapter: a student is a LoRA; give its rank, such as 16.")


RECIPES = {"fluxir": FluxIRConfig, "ummf": UMMFConfig, "reinforce": ReinforceConfig, "distill": DistillConfig}
"""The recipes of `fluxir train` by their names."""


def _typed(cls, values, where):
    """`cls` from a mapping of its fields. Numbers may be whole where a float is expected, nothing else is converted."""
    known = {each.name: each for each in fields(cls)}
    if not isinstance(values, dict):
        raise ValueError(f"{where} is no mapping; use {', '.join(known)}.")
    for name in values:
        if name not in known:
            raise ValueError(f"{where} has no setting {str(name)[:60]!r}; use {', '.join(known)}.")
    lacking = [each.name for each in known.values() if each.default is each.default_factory is MISSING and each.name not in values]
    if lacking:
        raise ValueError(f"{where} is incomplete (it lacks {', '.join(lacking)}); see the files in {CONFIGS}.")
    typed = {name: _value(known[name].type, value, where, name) for name, value in values.items()}
    try:
        return cls(**typed)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _value(kind, value, where, name):
    if is_dataclass(kind):
        return _typed(kind, value, f"{where}: {name}")
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and abs(value) < 2**53:
        return float(value)
    for each in kinds:
        if get_origin(each) is list:
            if isinstance(value, list) and all(isinstance(item, get_args(each)) for item in value):
                return value
        elif get_origin(each) is dict:
            if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
                return {key: _value(get_args(each)[1], item, where, f"{name}: {key}") for key, item in value.items()}
        elif (
            isinstance(value, each)
            and (each is bool or not isinstance(value, bool))
            and (not isinstance(value, float) or isfinite(value))
        ):
            return value
    raise ValueError(f"{where}: {name} is {repr(value)[:60]}, but a {getattr(kind, '__name__', kind)} is expected.")
