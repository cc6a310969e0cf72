"""What fits a device's memory: tiles, micro-batches, out of memory."""
