"""The sample photos that the graphs begin with, where Load Image finds them."""

import logging
from pathlib import Path

import folder_paths

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def place_samples():
    """Copies the sample photos into ComfyUI's input folder, those that it lacks; what is there is never overwritten."""
    folder = Path(folder_paths.get_input_directory())
    for sample in SAMPLES.glob("*.jpg"):
        try:
            with (folder / sample.name).open("xb") as copy:
                copy.write(sample.read_bytes())
        except FileExistsError:
            continue
        except OSError as error:
            logging.info("FluxIR: the sample photos are not in the input folder (%s); take them from %s.", error, SAMPLES)
            return
