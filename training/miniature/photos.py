"""Real photographs under free licenses, from Debian's packages: fetched, checked by hash, never committed.

    python -m comfyui_fluxir.training.miniature.photos FOLDER

The packages are only how the files come here: a photo is known by its own SHA-256, so any release of a package will do, and so
will a folder of the same files from elsewhere (`fluxir train miniature --photos FOLDER`).
"""

import hashlib
import io
import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LARGEST = 2048
"""The shorter side, in pixels, that a photo is brought down to when it is read: crops are smaller than that."""

PACKAGES = {
    "lomiri-wallpapers-16.04": ("20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab"),
    "lomiri-wallpapers-20.04": ("20.04.0-2", "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709"),
    "mate-backgrounds": ("1.26.0-1", "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04"),
    "plasma-workspace-wallpapers": ("4:5.27.5-2", "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b"),
}
"""Debian's packages of photos: the version this list was made from, and the SHA-256 of its file."""


@dataclass(frozen=True)
class Photo:
    """One photograph: its name here, the package and the path in it, whose it is, and the SHA-256 of the file."""

    name: str
    package: str
    path: str
    author: str
    license: str
    sha256: str

    @property
    def filename(self):
        return f"{self.name}{Path(self.path).suffix}"


# fmt: off
TRAINING = (
    Photo("bridge", "lomiri-wallpapers-16.04", "usr/share/backgrounds/Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", "CC-BY-SA-4.0", "bd86b081f9975e2b83527f71e49b9271a8ab40885428395969d9f7d834d7f050"),
    Photo("dragonfly", "lomiri-wallpapers-16.04", "usr/share/backgrounds/Dragonfly_by_Bolly.jpg", "Bolly", "CC-BY-SA-4.0", "af5af17841009732def24b09bb1e669a1b09d2b4bdeee7812c371101c30d2bb3"),
    Photo("fig", "lomiri-wallpapers-16.04", "usr/share/backgrounds/Picture_0B_by_freespace.jpg", "Freespace", "CC-BY-4.0", "c8c0ab18e48d9e0419fe42881112137f3afafc27dfddc29ec3a6d54c56d225ad"),
    Photo("meadow", "lomiri-wallpapers-16.04", "usr/share/backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", "66268e7b48f8854d36a28765fac6e23ec1aee251daa6da1f64715f201020ad36"),
    Photo("grain", "lomiri-wallpapers-16.04", "usr/share/backgrounds/analogpattern_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0", "15372488a192b2be2eafc67bd3ed31cbfca19abe3929e925607fcbc9cb4d4202"),
    Photo("bird", "lomiri-wallpapers-16.04", "usr/share/backgrounds/free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0", "85a5453c2fed514c75973016f3d862aca62eb7ca087618822469274ac1092373"),
    Photo("sunset", "lomiri-wallpapers-16.04", "usr/share/backgrounds/sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", "474dab6a4b9f94dc76c29dfe30e9f5db4af0fd2e33fe5d695f8152b371efca18"),
    Photo("aqua", "mate-backgrounds", "usr/share/backgrounds/mate/nature/Aqua.jpg", "Charles Barbin", "GPL-2+", "5c30118205982da441bf7e6a1ada636a8a0be879408140b3148280c665ed6bce"),
    Photo("blinds", "mate-backgrounds", "usr/share/backgrounds/mate/nature/Blinds.jpg", "Lennart Poettering", "GPL-2+", "f7aac0dcc2e06d0491643e84df3da1d9db7c4610f58806a880d56e074799f600"),
    Photo("garden", "mate-backgrounds", "usr/share/backgrounds/mate/nature/Garden.jpg", "Charles Barbin", "GPL-2+", "d3095ee09d425ef23d27155412136cf14fc3c9af76ca58b452f55e23da324e78"),
    Photo("greenmeadow", "mate-backgrounds", "usr/share/backgrounds/mate/nature/GreenMeadow.jpg", "Timothy Schellhase", "GPL-2+", "8fa0de0aa4089f7319c9fb7a6d006d4cab6023e8c8853731557cff53567b4832"),
    Photo("raindrops", "mate-backgrounds", "usr/share/backgrounds/mate/nature/RainDrops.jpg", "blackcombwhistler07", "GPL-2+", "3e4ea9671c28c90a86cf67b3db9daf18c4741587c596333a7529ca589aaa0c16"),
    Photo("storm", "mate-backgrounds", "usr/share/backgrounds/mate/nature/Storm.jpg", "Sergey Nazarov", "GPL-2+", "77ca53077831d3237f73393a91fc879158abc046d852941c26e90de336356957"),
    Photo("twowings", "mate-backgrounds", "usr/share/backgrounds/mate/nature/TwoWings.jpg", "Charles Barbin", "GPL-2+", "665e5abf8a5399070a91a9a8e455fe071e5b61697ff78fdeda4e9843ef545aeb"),
    Photo("wood", "mate-backgrounds", "usr/share/backgrounds/mate/nature/Wood.jpg", "Jean-François Fortin Tam", "GPL-2+", "19c78500ac00a622e19907ab9cc7d06d46fe08c4a6142759a84195696150ec07"),
    Photo("yellowflower", "mate-backgrounds", "usr/share/backgrounds/mate/nature/YellowFlower.jpg", "Charles Barbin", "GPL-2+", "254da96256acb7add685679775a04d1e4a5bc8cd13e5a5a3d61351ce198a5306"),
    Photo("leaf", "plasma-workspace-wallpapers", "usr/share/wallpapers/FallenLeaf/contents/images/2560x1600.jpg", "Martin Klapetek", "LGPL-3", "95603a6560c7e8d50e0e03b3f4adbe39c5258c72528e74e4ecaea1daf4e499de"),
    Photo("forest", "plasma-workspace-wallpapers", "usr/share/wallpapers/Path/contents/images/2560x1600.jpg", "Risto Saukonpää", "LGPL-3", "7477457d7f17b736259f1b021864778ad4ba802cf3214e6728181ff29126bba8"),
    Photo("dusk", "plasma-workspace-wallpapers", "usr/share/wallpapers/DarkestHour/contents/images/2560x1600.jpg", "Risto Saukonpää", "LGPL-3", "8e3703fae3a3c217b1fc2b399b706cd3720584268d071ba153e4809daa55f1ce"),
    Photo("facade", "plasma-workspace-wallpapers", "usr/share/wallpapers/Grey/contents/images/2560x1600.jpg", "Sigi Sagi", "LGPL-3", "88c31d8944b7e6935d1b9a296654c692f0772cb512491713eb30a972a604c0ed"),
    Photo("kite", "plasma-workspace-wallpapers", "usr/share/wallpapers/Kite/contents/images/2560x1600.jpg", "Risto Saukonpää", "LGPL-3", "bdca288ce296a981e80659c021cf707caddc702c0c8d4247e60bd618476d47f8"),
    Photo("moss", "plasma-workspace-wallpapers", "usr/share/wallpapers/OneStandsOut/contents/images/2560x1600.jpg", "Risto Saukonpää", "LGPL-3", "cb507baf1dafdcae362264f3aba9483ed4be5f6c9fdd770f0ec0920c6d9e80fd"),
    Photo("pier", "plasma-workspace-wallpapers", "usr/share/wallpapers/ColdRipple/contents/images/2560x1600.jpg", "Risto Saukonpää", "LGPL-3", "05bef6722fc0ed81292cceb3ed026c38d17e510f3c84be7d68610c2b1a723c3f"),
    Photo("jetty", "plasma-workspace-wallpapers", "usr/share/wallpapers/BytheWater/contents/images/2560x1600.jpg", "Maciej Wiklo", "LGPL-3", "c272434ef39f2abf1ed48a15a8910088020f3165329a5092f3940ec9464bc05f"),
    Photo("lake", "plasma-workspace-wallpapers", "usr/share/wallpapers/summer_1am/contents/images/2560x1600.jpg", "Risto Saukonpää", "LGPL-3", "c868b50789591dd42910153c768053f1ba0a98cb36bbfc2b7a96a1045d0477f8"),
)
"""Trained and tuned on."""

HELD_OUT = (
    Photo("dogs", "lomiri-wallpapers-16.04", "usr/share/backgrounds/friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", "cc40e313c74e421edffe3403def413c16878ce14661cce7ec5915baeab35538d"),
    Photo("brushes", "lomiri-wallpapers-16.04", "usr/share/backgrounds/Picture_1A_by_freespace.jpg", "Freespace", "CC-BY-4.0", "89e86af38d04daaef975665dc2127e9fa76f0fd68f4eea105a2d0ae3390b010b"),
    Photo("stream", "lomiri-wallpapers-16.04", "usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", "4c119350ead80201fe256850c3d316309ddfb4bdf10b235ce982dcde0c667c05"),
    Photo("mountain", "lomiri-wallpapers-16.04", "usr/share/backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", "414d0072b2f6f2c555deafeaef6e45c4fed6fa9ad26eba6560ca8803959cf97a"),
    Photo("room", "lomiri-wallpapers-16.04", "usr/share/backgrounds/Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0", "d2e96e6d4da40dd804b3d0ce295e94de04a2d7d9b6785d42cd9d92ba58bced74"),
    Photo("dandelion", "lomiri-wallpapers-16.04", "usr/share/backgrounds/seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0", "a5634d1ab5e41a3568e92d4a894a500c92b891f9ff734e50bd224d6e185a605f"),
    Photo("clock", "lomiri-wallpapers-16.04", "usr/share/backgrounds/greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0", "e7b20e2db9dcd6e2b278ca55873c2110b35d89cd38b04d0b18728726888e6889"),
    Photo("nuthatch", "lomiri-wallpapers-20.04", "usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", "CC-BY-SA-3.0", "6572410c09f4492c74ccadde133565a14c0161617d5917d4c820c66d65a44ba7"),
    Photo("dune", "mate-backgrounds", "usr/share/backgrounds/mate/nature/Dune.jpg", "Marco Cogoni", "GPL-2+", "8a67c2cb0be8c46b70c237311a4fa4d2b4ac7d39568135384787801fa5cc9a91"),
    Photo("ladybird", "mate-backgrounds", "usr/share/backgrounds/mate/nature/LadyBird.jpg", "Charles Barbin", "GPL-2+", "e35a9a4126ef969c90b29c038058c5a575a20eadd84106a37bf1fa9931e7b61d"),
    Photo("cups", "plasma-workspace-wallpapers", "usr/share/wallpapers/ColorfulCups/contents/images/2560x1600.jpg", "Dmitri Popov", "LGPL-3", "6e0f3a72feb5a4a9fec191b77e34874c3c69e2d93040deb3f07773e73385023d"),
    Photo("boats", "plasma-workspace-wallpapers", "usr/share/wallpapers/EveningGlow/contents/images/2560x1600.jpg", "Ian Hex", "LGPL-3", "586682dcb362b9f620068f10138f87d0d3649939aef238adc5807cb951976a7a"),
)
"""Never trained or tuned on; those under CC0 and CC-BY are also the sample photos of graphs and demo."""
# fmt: on


def fetch_photos(folder):
    """Fetches all photos into `folder` by apt, which needs no root, and keeps those that are there already.

    Raises ValueError where there is no apt, a download fails or a photo is not the one that was listed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [photo for photo in (*TRAINING, *HELD_OUT) if not _is_there(photo, folder)]
    for package in dict.fromkeys(photo.package for photo in missing):
        wanted = {photo.path: photo for photo in missing if photo.package == package}
        logging.info("fetching %d photos of %s", len(wanted), package)
        for path, content in _unpacked(package):
            photo = wanted.pop(path, None)
            if photo is None:
                continue
            if hashlib.sha256(content).hexdigest() != photo.sha256:
                raise ValueError(f"photos: {path} in {package} is not the photo that was listed; {_BY_HAND}")
            (folder / photo.filename).write_bytes(content)
        if wanted:
            raise ValueError(f"photos: {package} no longer holds {', '.join(wanted)}; {_BY_HAND}")


_BY_HAND = "give --photos a folder with the same photos, named as in training/miniature/photos.py."


def _is_there(photo, folder):
    path = folder / photo.filename
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == photo.sha256


def _unpacked(package):
    """The files of Debian's `package` as (path, content), downloaded for the occasion."""
    if not shutil.which("apt-get"):
        raise ValueError(f"photos: this system has no apt-get to fetch {package} with; {_BY_HAND}")
    version, digest = PACKAGES[package]
    with tempfile.TemporaryDirectory() as scratch:
        for wanted in (f"{package}={version}", package):  # mirrors keep one version: a later one may hold the same photos
            command = ["apt-get", "download", "-qq", wanted]
            if subprocess.run(command, cwd=scratch, capture_output=True).returncode == 0:
                break
        else:
            raise ValueError(f"photos: {package} could not be downloaded (run `apt-get update` once); {_BY_HAND}")
        (archive,) = Path(scratch).glob("*.deb")
        content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        logging.info("%s is another version than %s; its photos are checked one by one", package, version)
    with tarfile.open(fileobj=io.BytesIO(_data_of(content)), mode="r:*") as files:
        for member in files:
            if member.isfile() and (content := files.extractfile(member)):
                yield member.name.removeprefix("./"), content.read()


def _data_of(archive):
    """The `data.tar` of a Debian package: the package is an `ar` archive of headers of 60 bytes, each with its content."""
    at = len(b"!<arch>\n")
    while at < len(archive):
        name, size = archive[at : at + 16].decode().strip(), int(archive[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError("photos: the package holds no data.tar; it was not downloaded whole.")


def read_photo(photo, folder):
    """`photo` of `folder` as RGB uint8 (H, W, 3), its shorter side at most LARGEST pixels. Raises ValueError when it is missing."""
    path = Path(folder) / photo.filename
    if not path.exists():
        raise ValueError(f"photos: {path} is missing; fetch it with `python -m comfyui_fluxir.training.miniature.photos {folder}`.")
    with Image.open(path) as image:
        image = image.convert("RGB")
        scale = min(image.size) / LARGEST
        if scale > 1:
            image = image.resize([round(side / scale) for side in image.size], Image.Resampling.BOX)
        return np.asarray(image)


def attribution():
    """The photos' authors and licenses, a line of Markdown each."""
    return "\n".join(f"- {p.name}: {p.author}, {p.license} ({p.package})" for p in (*TRAINING, *HELD_OUT))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fetch_photos(sys.argv[1])
