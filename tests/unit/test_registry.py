"""What the ComfyUI registry asks of the pack, by the registry's own tool where it has one."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from comfyui_fluxir.demo.environment import NEWEST, OLDEST
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config():
    from comfy_cli.registry.config_parser import extract_node_configuration

    return extract_node_configuration(str(ROOT / "pyproject.toml"))


def test_the_registrys_tool_finds_nothing_wrong(tmp_path):
    quiet = {**os.environ, "DO_NOT_TRACK": "1", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "node", "validate"]
    ended = subprocess.run(command, cwd=ROOT, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0 and "All validation checks passed" in ended.stdout and "Warning" not in ended.stdout


def test_every_field_that_the_registry_asks_for_is_there(config):
    project, comfy = config.project, config.tool_comfy
    assert comfy.publisher_id and comfy.display_name and project.description
    assert project.urls.repository.startswith("https://") and project.urls.issues and project.urls.documentation
    assert project.license.text == "Apache-2.0" and project.supported_os == ["OS Independent"]
    assert project.supported_comfyui_version == f">={OLDEST}"


def test_the_name_is_one_that_the_registry_asks_for(config):
    assert config.project.name == "fluxir" and "comfy" not in config.project.name


@pytest.mark.parametrize(("field", "size"), [("icon", (400, 400)), ("banner_url", (1050, 450))])
def test_icon_and_banner_are_in_the_repository(config, field, size):
    address = getattr(config.tool_comfy, field)
    branch = config.project.urls.repository.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
    assert address.startswith(branch)
    with Image.open(ROOT / address.removeprefix(branch)) as image:
        assert image.size == size  # at most 400 x 400; 21:9


def test_the_supported_versions_are_stated_where_people_look(config):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert OLDEST in readme and NEWEST in readme
    section = CHANGELOG.split(f"## {config.project.version}")[1].split("\n## ")[0]
    assert f"ComfyUI {OLDEST} to {NEWEST}" in section


@pytest.fixture
def archive_of(tmp_path, monkeypatch):
    """Names of the files in the archive that the registry's tool makes of a folder."""
    from comfy_cli import file_utils

    # Weights take seconds to compress, and only names are asked for.
    monkeypatch.setattr(file_utils, "zipfile", SimpleNamespace(ZipFile=zipfile.ZipFile, ZIP_DEFLATED=zipfile.ZIP_STORED))

    def made(folder):
        monkeypatch.chdir(folder)
        file_utils.zip_files(str(tmp_path / "node.zip"))
        with zipfile.ZipFile(tmp_path / "node.zip") as archive:
            return set(archive.namelist())

    return made


def test_the_published_archive_is_what_git_tracks_without_tests_tools_and_ci(archive_of):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    left_out = ("tests/", "tools/", ".ci/", ".github/", ".gitattributes", ".gitignore", ".comfyignore", ".pre-commit-config.yaml")
    expected = {name for name in tracked if not name.startswith(left_out) and (ROOT / name).exists()}
    assert archive_of(ROOT) == expected
    assert {"__init__.py", "pyproject.toml", "LICENSE", "README.md"} <= expected


def test_an_archive_that_is_made_without_git_holds_no_cache(archive_of, tmp_path):
    (tmp_path / ".comfyignore").write_text((ROOT / ".comfyignore").read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("nodes/a.py", "nodes/__pycache__/a.pyc", ".venv/b", ".cache/comfyui/c", "output/d.png", "tests/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert archive_of(tmp_path) == {"nodes/a.py"}


@pytest.fixture
def changes_step(tmp_path):
    """Runs the publish workflow's first step for a tag. Returns its process, and the file that it wrote."""
    if os.name == "nt":
        pytest.skip("the workflow runs on Linux")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish_action.yml").read_text(encoding="utf-8"))
    (script,) = (step["run"] for step in workflow["jobs"]["publish"]["steps"] if "GITHUB_REF_NAME" in step.get("run", ""))
    for name in ("pyproject.toml", "CHANGELOG.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")

    def run(tag):
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        ended = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return ended, tmp_path / "changes.md"

    return run


def test_publishing_a_version_sends_its_section_of_the_changelog(changes_step, config):
    ended, changes = changes_step(f"v{config.project.version}")
    assert ended.returncode == 0
    assert (
        changes.read_text(encoding="utf-8").strip()
        and changes.read_text(encoding="utf-8") in CHANGELOG
        and "\n## " not in changes.read_text(encoding="utf-8")
    )


def test_a_tag_of_another_version_publishes_nothing(changes_step):
    ended, changes = changes_step("v9.9.9")
    assert ended.returncode == 1 and "the tag is v9.9.9" in ended.stdout and not changes.exists()
