"""The subcommands of `fluxir`, a file each."""
