"""Any metric of pyiqa (IQA-PyTorch), when the user has installed it: optional, PolyForm-Noncommercial, never fetched."""

import difflib
import os
import re
import threading
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch.nn import functional as F

from ..image.pixels import normalize
from .fidelity import reference_batch
from .pretrained import VerifierFileError


class _NotOnDisk(OSError):
    """A file that creating a metric would have downloaded: its address and the folder it belongs in."""

    def __init__(self, url, folder):
        super().__init__(f"{Path(url).name} belongs into {folder}, from {url}")


@contextmanager
def _replaced(owner, name, value):
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


@contextmanager
def _offline(downloads=None):
    """Nothing that this thread does inside is downloaded; what would have been raises OSError at once.

    Covers Hugging Face's hub, torch.hub and urllib. `downloads`: pyiqa's own module of them, which binds torch.hub's.
    """
    import huggingface_hub.constants as hub  # before the variable is set: it is read once, at import

    caller, hub_fetch, url_open = threading.get_ident(), torch.hub.download_url_to_file, urllib.request.urlopen

    def fetch(url, dst, *arguments, **options):
        if threading.get_ident() == caller:
            raise _NotOnDisk(url, Path(dst).parent)
        return hub_fetch(url, dst, *arguments, **options)

    def opened(url, *arguments, **options):
        if threading.get_ident() == caller:  # in pyiqa, only CLIP's weights are fetched this way
            raise _NotOnDisk(getattr(url, "full_url", url), f"{Path(torch.hub.get_dir()) / 'clip'} or ~/.cache/clip")
        return url_open(url, *arguments, **options)

    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        with ExitStack() as stack:
            stack.enter_context(_replaced(hub, "HF_HUB_OFFLINE", True))
            for owner in (urllib.request, torch.hub):
                stack.enter_context(_replaced(owner, "urlopen", opened))
            for owner in (torch.hub, downloads):
                if hasattr(owner, "download_url_to_file"):
                    stack.enter_context(_replaced(owner, "download_url_to_file", fetch))
            yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


@contextmanager
def _seeded():
    """Some metrics draw crops from the global generators: inside, from the same seed every time; outside, untouched."""
    import numpy as np

    drawn = np.random.get_state()
    np.random.seed(0)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
    finally:
        np.random.set_state(drawn)


def _address(error):
    """The address in the messages of `error` and of what caused it, or None."""
    while error is not None:
        found = re.search(r"https?://[^\s'\")]+", str(error))
        if found:
            return found[0].rstrip(".,:")
        error = error.__cause__ or error.__context__
    return None


def create(name):
    """pyiqa's metric `name` on the CPU, from weights that are already on disk.

    Raises ImportError without pyiqa or a package the metric needs, ValueError for names pyiqa does not know and for
    metrics of sets of images, VerifierFileError when weights are not on disk. pyiqa reads pickles without
    torch's safeguard: put only files you trust into its folders.
    """
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"PyIQAMetric: pyiqa cannot be imported ({error}); pip install pyiqa (its license is PolyForm-Noncommercial)."
        ) from error
    known = [metric for metric in pyiqa.list_models() if "fid" not in metric and metric != "inception_score"]
    if name not in known:
        near = difflib.get_close_matches(name, known, 5, 0.4) or known[:5]
        raise ValueError(f"PyIQAMetric: {name!r} is no metric of single images in pyiqa; near it: {', '.join(near)}.")
    try:
        with _offline(getattr(getattr(pyiqa, "utils", None), "download_util", None)):
            return pyiqa.create_metric(name, device=torch.device("cpu"))
    except _NotOnDisk as error:
        raise VerifierFileError(f"PyIQAMetric: {name}'s weights are not on disk: {error}.") from error
    except ImportError as error:
        raise ImportError(f"PyIQAMetric: {name} needs a package that is missing ({error}).") from error
    except OSError as error:
        import huggingface_hub.constants as hub

        first = _address(error) or (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise VerifierFileError(
            f"PyIQAMetric: {name}'s weights are not on disk; they belong into {Path(torch.hub.get_dir()) / 'pyiqa'} "
            f"or, from Hugging Face, into {hub.HF_HUB_CACHE} ({first})."
        ) from error


def _resized(reference, size):
    """`reference` (B, 3, h, w) in [0, 1] at `size`: area where it shrinks, bicubic where it grows."""
    if list(reference.shape[2:]) == list(size):
        return reference
    if all(wanted <= given for wanted, given in zip(size, reference.shape[2:])):
        return F.interpolate(reference, size, mode="area")
    return F.interpolate(reference, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


class PyIQAMetric:
    """pyiqa's metric with its sign turned so that higher is better; full-reference metrics compare with `reference`.

    Images go through one at a time: some metrics do not take batches, and most see images at their full size.
    A finite image for which the metric has no number (NaN) scores -inf. The label is `pyiqa_` and the metric's name.
    """

    def __init__(self, name, device="cpu"):
        """`name` as pyiqa lists them (`musiq`, `topiq_nr`, `lpips`, ...), see `create` for what is raised."""
        self.name = f"pyiqa_{name}"
        self.module = create(name).to(device).eval()

    @torch.no_grad()
    def __call__(self, images, reference=None):
        compares = self.module.metric_mode == "FR"
        if compares and reference is None:
            raise ValueError(f"PyIQAMetric: {self.name} needs a reference; connect the degraded input.")
        images, finite = normalize(images, minimum=1)
        if compares:
            reference, whole = reference_batch(reference, images)
            reference = _resized(reference, images.shape[2:]).expand_as(images)
            finite = finite & whole
        else:
            reference = None
        device = next((tensor.device for tensor in self.module.parameters()), images.device)
        scores = torch.full((len(images),), -torch.inf, device=images.device)
        for index in finite.nonzero()[:, 0].tolist():
            shown = [planes[index : index + 1] for planes in (images, reference) if planes is not None]
            with _seeded():
                found = self.module(*(normalize(planes)[0].to(device) for planes in shown))
            scores[index] = torch.as_tensor(found).float().reshape(-1)[0].to(scores.device)
        scores = -scores if self.module.lower_better else scores
        return torch.where(finite & ~scores.isnan(), scores, -torch.inf)
