"""Docstrings of what others call: many parameters are explained one by one, and so are results and errors."""

import ast
import builtins
import re
from pathlib import Path

import pytest
from comfyui_fluxir import fluxir_core, training

ROOT = Path(__file__).resolve().parents[2]
FEW = 3
"""So many parameters explain themselves."""
BAD_INPUT = (ValueError, TypeError, LookupError, OSError)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WAITING = (
    "fluxir_core/lora/files.py",
    "fluxir_core/lora/peft_files.py",
    "fluxir_core/lora/few_steps.py",
    "fluxir_core/lucidflux/files.py",
)
"""Files whose docstrings are still to be written. This list only shrinks."""
SECTION = re.compile(r"^(Args|Returns|Yields|Raises):$")
EMPTY = re.compile(r"^(Args|Returns|Yields|Raises):$(?!\n {4}\S)", re.M)
ENTRY = re.compile(r"^    (\w+(?:, \w+)*): \S")
"""What is explained together stands together: `height, width: pixels`."""


def sources():
    """{path: its syntax tree} of every file of the two packages."""
    paths = sorted(path for package in ("fluxir_core", "training") for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


SOURCES = sources()


def own_nodes(function):
    """The nodes of a function's body without those of the functions and classes in it."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def bad_input_errors(trees):
    """Names of the exceptions that say that an argument or a file is bad: the built-in ones and the packages' own."""
    names = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BAD_INPUT)}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in classes:  # a class may stand before its base
        names |= {node.name for node in classes if names & {ast.unparse(base) for base in node.bases}}
    return names


ERRORS = bad_input_errors(SOURCES.values())


def parameters(function):
    """A function's parameters, without `self` and `cls`."""
    given = function.args
    listed = (*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg)
    names = [one.arg for one in listed if one is not None]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def constructor(cls):
    """What a class is made of: its `__init__`'s parameters, or the fields of a dataclass or named tuple."""
    for node in cls.body:
        if isinstance(node, FUNCTIONS) and node.name == "__init__":
            return parameters(node)
    fields = [node for node in cls.body if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)]
    return [field.target.id for field in fields if field.value is None or "init=False" not in ast.unparse(field.value)]


def result(function):
    """The section that a function's result belongs in, "" if it has none."""
    nodes = list(own_nodes(function))
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in nodes):
        return "Yields"
    if function.returns is not None:
        return "" if ast.unparse(function.returns) in ("None", "NoReturn") else "Returns"
    values = [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]
    return "Returns" if any(not (isinstance(value, ast.Constant) and value.value is None) for value in values) else ""


def raised(function, errors):
    """Those of `errors`, names, that a function's own body raises."""
    kinds = [node.exc for node in own_nodes(function) if isinstance(node, ast.Raise) and node.exc is not None]
    names = {ast.unparse(kind.func if isinstance(kind, ast.Call) else kind) for kind in kinds}
    return names & errors


def sections(docstring):
    """{section: the names of its entries}; what stands before the first one is under ""."""
    found, present = {"": []}, ""
    for line in (docstring or "").splitlines():
        if title := SECTION.match(line):
            present = title[1]
            found[present] = []
        elif entry := ENTRY.match(line):
            found[present] += entry[1].split(", ")
        elif line and not line.startswith(" "):
            present = ""
    return found


def faults_of_arguments(docstring, names):
    """What an `Args` section lacks or has too much, or [] if it names `names` in their order."""
    listed = sections(docstring).get("Args", [])
    return [] if listed == list(names) else [f"Args: {', '.join(listed) or 'none'} (should be: {', '.join(names)})"]


def faults_of_function(function, errors=ERRORS):
    """What a function's docstring lacks, as texts."""
    names = parameters(function)
    if len(names) <= FEW:
        return []
    docstring = ast.get_docstring(function)
    found, wanted = sections(docstring), result(function)
    faults = faults_of_arguments(docstring, names)
    if not (docstring or "").split("Args:")[0].strip():
        faults.append("no summary")
    if wanted and wanted not in found:
        faults.append(f"{wanted}: missing")
    faults += [f"{section}: there is no result" for section in ("Returns", "Yields") if section in found and section != wanted]
    faults += [f"{section}: empty" for section in EMPTY.findall(docstring or "")]
    return faults + [f"Raises: {name} missing" for name in sorted(raised(function, errors) - set(found.get("Raises", ())))]


def public_functions(body, prefix=""):
    """(name, node) of the public functions of a module and of the public methods of its public classes."""
    for node in body:
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_"):
            yield prefix + node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{prefix}{node.name}.")
        if isinstance(node, (ast.If, ast.Try)):
            yield from public_functions(ast.iter_child_nodes(node), prefix)


def faults_of_file(tree, errors=ERRORS):
    """[text] for every public function of a file that is not documented in full."""
    functions = public_functions(tree.body)
    return [f"line {node.lineno}, {name}: {fault}" for name, node in functions for fault in faults_of_function(node, errors)]


def exported_classes():
    """(name, node) of the classes that the two packages export."""
    for module in (fluxir_core, training):
        for value in (getattr(module, name) for name in module.__all__):
            if isinstance(value, type):
                path = f"{value.__module__.partition('.')[2].replace('.', '/')}.py"
                (node,) = (node for node in SOURCES[path].body if isinstance(node, ast.ClassDef) and node.name == value.__name__)
                yield value.__name__, node


@pytest.mark.parametrize("path", sorted(set(SOURCES) - set(WAITING)))
def test_functions_with_many_parameters_explain_them(path):
    assert faults_of_file(SOURCES[path]) == []


@pytest.mark.parametrize("path", WAITING)
def test_what_is_done_no_longer_waits(path):
    assert faults_of_file(SOURCES[path]), f"{path} is documented: take it out of WAITING"


def test_exported_classes_explain_what_they_are_made_of():
    classes = dict(exported_classes())
    assert {"AdapterConfig", "FluxIRAdapter", "LoRA", "Task", "SMC", "Restorer"} <= set(classes)
    many = {name: node for name, node in classes.items() if len(constructor(node)) > FEW}
    faults = [fault for node in many.values() for fault in faults_of_arguments(ast.get_docstring(node), constructor(node))]
    assert len(many) > 8 and faults == []


WHOLE = '''
class EvenError(ValueError): ...

def blur(images, kernel, strength=1.0, *, seeds):
    """Blur images.

    Args:
        images: (B, 3, H, W) in [0, 1].
        kernel, strength: odd width in pixels; 0 changes nothing:
            it is cut at 1.
        seeds: one whole number an image.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: the kernel is even.
    """
    if kernel % 2 == 0:
        raise ValueError("even")
    return images
'''
SHOULD = "(should be: images, kernel, strength, seeds)"


@pytest.mark.parametrize(
    ("text", "instead", "faults"),
    [
        ("", "", []),
        ("kernel, strength: odd", "kernel: odd", [f"Args: images, kernel, seeds {SHOULD}"]),
        ("kernel, strength: odd", "strength, kernel: odd", [f"Args: images, strength, kernel, seeds {SHOULD}"]),
        ("Args:", "Arguments:", [f"Args: none {SHOULD}"]),
        ("    Returns:\n        (B, 3, H, W) in [0, 1].\n", "", ["Returns: missing"]),
        ("        (B, 3, H, W) in [0, 1].\n\n    Raises", "\n    Raises", ["Returns: empty"]),
        ("    return images", "    return None", ["Returns: there is no result"]),
        ("    return images", "    yield images", ["Yields: missing", "Returns: there is no result"]),
        ("    Raises:\n        ValueError: the kernel is even.\n", "", ["Raises: ValueError missing"]),
        ("raise ValueError", "raise EvenError", ["Raises: EvenError missing"]),
        ("raise ValueError", "raise RuntimeError", []),
        ("Blur images.", "", ["no summary"]),
        ("def blur", "def _blur", []),
        ("kernel, strength=1.0, *, seeds", "kernel, strength", []),
    ],
)
def test_a_fault_is_seen(text, instead, faults):
    tree = ast.parse(WHOLE.replace(text, instead))
    assert [fault.removeprefix("line 4, blur: ") for fault in faults_of_file(tree, bad_input_errors([tree]))] == faults


def test_a_class_is_made_of_its_fields_or_of_its_constructor():
    (fields,) = ast.parse("class A:\n a: int\n b: int = 0\n c: ClassVar[int] = 0\n d: list = field(init=False)\n").body
    (constructed,) = ast.parse("class A:\n a: int\n def __init__(self, b, *, c, **d): ...\n").body
    assert constructor(fields) == ["a", "b"] and constructor(constructed) == ["b", "c", "d"]
