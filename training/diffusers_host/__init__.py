"""FLUX, its adapters and its LoRAs on diffusers' FluxTransformer2DModel."""
