"""Batches of images for training: cropped, degraded, encoded and cached."""
