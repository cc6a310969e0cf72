"""Degradations: what turns a clean image into a degraded one."""
