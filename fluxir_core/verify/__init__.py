"""Verifiers: what judges restored images."""
