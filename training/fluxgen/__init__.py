"""FluxGen: making data to train restoration adapters on."""
