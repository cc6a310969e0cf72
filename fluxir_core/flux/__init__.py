"""What FLUX is: its sizes, layers, blocks, keys and tokens, and the files its weights are in."""
