"""Unified Multi-Modal Fusion: condition tokens beside the model's own."""
