"""The FluxIR adapter and its file."""
