"""What would break on Windows or macOS, read from the source: the suite as a whole runs on Linux."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("demo", "fluxir_core", "nodes", "tests", "tools", "training")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
BY_POSITION = {"read_text": 0, "write_text": 1}
"""Where these functions take an encoding that is not named."""
POSIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios"}


def text_calls_without_encoding(tree):
    """The lines that read or write text in the system's own encoding, which on Windows is not UTF-8."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name not in ("read_text", "write_text", "open") or any(key.arg in ("encoding", None) for key in call.keywords):
            continue
        if name == "open" and not opens_text(call):
            continue
        if len(call.args) > BY_POSITION.get(name, 9):
            continue
        yield call.lineno


def opens_text(call):
    """Whether `call` of something named open opens a text file: the built-in one, or a path's with a mode without "b"."""
    built_in = isinstance(call.func, ast.Name)
    given = [*call.args[int(built_in) :][:1], *(key.value for key in call.keywords if key.arg == "mode")]
    mode = given[0].value if given and isinstance(given[0], ast.Constant) else None
    if built_in:
        return mode is None or "b" not in mode
    return isinstance(mode, str) and set(mode) <= set("rwaxt+")


def posix_imports(tree):
    """The modules missing on Windows that the module `tree` imports at once, outside of a function and a `try`."""
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from POSIX_ONLY.intersection(names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_utf8_and_no_module_is_missing_elsewhere(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not list(text_calls_without_encoding(tree))
    assert not list(posix_imports(tree))


def test_the_reading_sees_what_it_should():
    seen = """
path.read_text()
path.write_text("x")
open("a")
path.open("w")
open("a", mode="a")
"""
    fine = """
path.read_text(encoding="utf-8")
path.write_text("x", "utf-8")
open("a", "rb")
path.open("wb")
Image.open("a.png")
span.open()
"""
    assert list(text_calls_without_encoding(ast.parse(seen))) == [2, 3, 4, 5, 6]
    assert not list(text_calls_without_encoding(ast.parse(fine)))
    assert list(posix_imports(ast.parse("import resource"))) == ["resource"]
    assert not list(posix_imports(ast.parse("try:\n    import fcntl\nexcept ImportError:\n    pass")))


def test_no_two_files_differ_in_case_only():
    names = [path.relative_to(ROOT).as_posix().lower() for path in ROOT.glob("*/**/*") if path.parts[len(ROOT.parts)][0] != "."]
    assert len(names) == len(set(names))
