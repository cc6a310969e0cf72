"""Images and their texts on disk: shards and folders."""
