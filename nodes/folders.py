"""Where the pack's weights are looked for."""

from pathlib import Path

import folder_paths

ADAPTERS = "fluxir_adapters"
VERIFIERS = "fluxir_verifiers"
CAPTIONERS = "fluxir_captioners"
TASTES = "fluxir_tastes"
MINIATURE = Path(__file__).resolve().parent.parent / "models" / "miniature"


def register_model_folders() -> None:
    """Add the bundled miniature to core's own loaders and register the folder key for FluxIR adapters.

    The bundled folders come last in the search order: a user's file of the same name wins, and "download to the default
    folder" tools never write into the pack.
    """
    for key in ("diffusion_models", "vae", "loras"):
        folder_paths.add_model_folder_path(key, str(MINIATURE / key))
    folder_paths.add_model_folder_path(ADAPTERS, str(Path(folder_paths.models_dir) / ADAPTERS))
    folder_paths.add_model_folder_path(ADAPTERS, str(MINIATURE / ADAPTERS))
    for key in (VERIFIERS, CAPTIONERS):
        folder_paths.add_model_folder_path(key, str(Path(folder_paths.models_dir) / key))
    folder_paths.add_model_folder_path(TASTES, str(Path(folder_paths.models_dir) / TASTES))
    # A new key starts without a list of extensions, which would offer every file of the folder.
    for key, ending in ((ADAPTERS, ".safetensors"), (TASTES, ".json")):
        paths, _ = folder_paths.folder_names_and_paths[key]
        folder_paths.folder_names_and_paths[key] = (paths, {ending})
