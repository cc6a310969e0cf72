"""LucidFlux, a public restorer for FLUX.1-dev: its networks, its files and its schedule (arXiv 2509.22414)."""
