"""LoRAs for FLUX and their files."""
