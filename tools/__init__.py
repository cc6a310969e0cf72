"""What makes the images and texts that the pack ships; not packaged."""
