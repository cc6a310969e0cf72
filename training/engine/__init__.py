"""The training loop and what it stands on: optimizers, processes, checkpoints, averages."""
