"""Where a run's batches come from: images, cropped, degraded and encoded once."""

import logging

import torch

from ...fluxir_core.data.source import ImageSource
from ...fluxir_core.flow.noise import keyed_generator
from .batch import Batch
from .cache import TensorCache
from .crops import Crops, Order


class ImageBatches:
    """Batches of the images that `config` (DataConfig) names, `batch` a step.

    `encode` takes images (B, 3, H, W) to latents, `embed` a prompt to (text, pooled); `work` keeps both, in folders whose
    names depend on everything that goes into them: `identity` is the models' part of it. Each of `processes` encodes its
    share, then `wait` is called. `config.held_out` images are `validation`, and never in a batch. `empty` is the empty
    prompt's (text, pooled), `fingerprint` the images'. What cannot be used is logged by the process that finds it. Raises
    ValueError when no image is left.
    """

    def __init__(self, config, batch, encode, embed, work, identity, seed=0, device="cpu", process=0, processes=1, wait=None):
        self.config, self.batch, self.device, self._encode, self._embed = config, batch, device, encode, embed
        self.crops = Crops(ImageSource(config.images), config.sizes, config.crop, config.degradation, seed)
        source = self.crops.source
        self.fingerprint = source.fingerprint
        self._prompts = {i: source.metadata_of(i).get("prompt", "") if config.prompts else "" for i in self.crops.indices}
        self._latents = TensorCache(
            work / "latents", identity, source.fingerprint, config.buckets, config.crop, config.degradation, seed
        )
        self._texts = TensorCache(work / "prompts", identity, config.text_tokens)
        for prompt in sorted({"", *self._prompts.values()})[process::processes]:
            if prompt not in self._texts:
                self._embedding(prompt)
        for name, reason in self.crops.skipped if process == 0 else ():
            logging.warning("%s is skipped: %s", name, reason)
        if config.cache:
            self._fill(self.crops.indices[process::processes])
        if wait:
            wait()
        usable = {i: size for i, size in self.crops.size.items() if not config.cache or self._key(i, 0) in self._latents}
        self.validation = self._held_out(usable, seed)
        training = {i: size for i, size in usable.items() if i not in self.validation}
        if not training:
            reasons = "".join(f"; {name}: {reason}" for name, reason in self.crops.skipped[:3])
            raise ValueError(
                f"data: of {config.images} no image is left to train on, with {config.held_out} held out{reasons}; "
                "give more or larger images, or smaller buckets."
            )
        self._order = Order(training, batch, seed)
        self.description = f"{len(training)} images of {source.path.name}"
        self.empty = tuple(self._embedding("")[name] for name in ("text", "pooled"))

    def rows(self, step):
        """How many images step `step` sees."""
        return self.batch

    def __call__(self, step, rows):
        """The Batch of the images at `rows` of step `step`."""
        epoch, indices = self._order(step)
        version = epoch % self.config.versions if self.config.cache else epoch
        return self.images([indices[row] for row in rows], version)

    def images(self, indices, version=0):
        """The Batch of the images `indices`, which have one size."""
        latents = [self._pair(index, version) for index in indices]
        texts = [self._embedding(self._prompts[index]) for index in indices]
        pairs = [torch.stack([own[name].float() for own in latents]) for name in ("clean", "degraded")]
        prompts = [torch.stack([own[name].float() for own in texts]) for name in ("text", "pooled")]
        return Batch.of_latents(pairs[0], pairs[1], prompts[0], prompts[1], self.device)

    def _embedding(self, prompt) -> dict:
        found = self._texts.get(prompt)
        if found is None:
            found = dict(zip(("text", "pooled"), self._embed(prompt)))
            self._texts.put(prompt, found)
        return found

    def _held_out(self, usable, seed):
        """The images for validation, drawn by their keys. They are cached in any case: none of them fails later."""
        keys, held_out = self.crops.source.keys, []
        for index in sorted(usable, key=lambda i: torch.rand((), generator=keyed_generator(seed, "held out", keys[i])).item()):
            if len(held_out) == self.config.held_out:
                break
            self._fill([index], versions=1)
            if self._key(index, 0) in self._latents:
                held_out.append(index)
        return held_out

    def _fill(self, indices, versions=None):
        for index in indices:
            for version in range(versions or self.config.versions):
                if self._key(index, version) in self._latents:
                    continue
                try:
                    self._latents.put(self._key(index, version), self._encoded(index, version))
                except ValueError as error:
                    self.crops.skipped.append((self.crops.source.names[index], str(error)))
                    logging.warning("%s is skipped: %s", *self.crops.skipped[-1])
                    break

    def _pair(self, index, version) -> dict:
        cached = self._latents.get(self._key(index, version))
        if cached:
            return cached
        for candidate in (index, *self._order.others(index)):
            try:
                encoded = self._encoded(candidate, version)
            except ValueError as error:
                logging.warning("%s; another image of its size takes its place", error)
                continue
            if self.config.cache and candidate == index:
                self._latents.put(self._key(index, version), encoded)  # in the place of a broken file
            return encoded
        raise ValueError(f"data: no image of {self.config.images} with the size of {self.crops.source.names[index]} can be read.")

    @torch.no_grad()
    def _encoded(self, index, version):
        pair = torch.stack(self.crops.pair(index, version)).to(self.device)
        clean, degraded = self._encode(pair).half().cpu()
        return {"clean": clean, "degraded": degraded}

    def _key(self, index, version):
        return f"{self.crops.source.keys[index]} {version}"
