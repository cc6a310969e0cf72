"""Rectified flow: sigmas, samplers, kernels of noise, guidance."""
