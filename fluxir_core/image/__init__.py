"""Images: pixels, colors, files, sheets and charts of them."""
