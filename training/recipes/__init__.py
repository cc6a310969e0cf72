"""The papers' training algorithms, a file each, and a run from configuration to file."""
