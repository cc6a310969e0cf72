"""A LoRA on diffusers' FluxTransformer2DModel that changes every token, through forward hooks alone."""

from ...fluxir_core.lora.lora import layer_key


class LoRAHost:
    """`host` (a FluxIRHost or UMMFHost) with `lora` (LoRA) added to its transformer; differentiable, undone by `remove`.

    `lora` may be trained while the host's own adapter is frozen. `strength` 0 leaves it out: the host itself.
    """

    def __init__(self, host, lora, strength=1.0):
        self.host, self.lora, self.strength = host, lora, strength
        self._handles = [
            host.transformer.get_submodule(name).register_forward_hook(self._hook(lora.layers[layer_key(name)]))
            for name in lora.shapes
        ]

    def __getattr__(self, name):
        return getattr(self.host, name)

    def _hook(self, layer):
        return lambda _module, args, output: output + self.strength * layer(args[0]) if self.strength else None

    def remove(self):
        """Takes the LoRA's hooks off the transformer again; those of `host` stay."""
        for handle in self._handles:
            handle.remove()
