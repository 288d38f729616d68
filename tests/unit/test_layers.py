"""Imports point down: the layers of the package, lowest first, and who may see whom."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import django_momento_http

PACKAGE = Path(django_momento_http.__file__).parent

# Lowest first: folders, and the modules at the top. One may import those of lower layers only.
LAYERS = [
    ["exceptions", "_interrupts", "_redaction"],
    ["_process", "_waitable", "_registry"],
    ["_singleflight"],
    ["serializers", "compressors"],
    ["_conf"],
    ["_http"],
    ["_client"],
    ["_store"],
    ["_get_or_set", "_backend"],
    ["cache"],
    ["_diagnostics"],
    ["checks"],
    ["testing"],
    ["pytest_plugin", "apps", "management"],
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
# It shares no code with the client, so that they cannot share a mistake.
ALONE = "server"
# Who may use the server: what wraps it for tests.
USERS_OF_THE_SERVER = {"testing"}
# Who knows a library; nobody else does. ``_registry`` and ``_conf`` import what settings name.
USERS = {
    "django": {"_backend", "_conf", "_diagnostics", "_get_or_set", "_registry", "apps", "cache"}
    | {"checks", "management", "pytest_plugin", "testing"},
    "httptools": {"_http", ALONE},
    "requests": {"_http"},
    "urllib3": set(),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def place_of(path: Path) -> str:
    """Return the folder or module at the top of the package that a file is of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """Return a file's module, dotted, without the package's own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports, absolute, wherever in the file it does."""
    parents = ("django_momento_http", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def modules(path: Path) -> set[str]:
    """Return which modules of the package a file imports."""
    known = {name_of(file) for file in FILES}
    prefix = "django_momento_http."
    names = {name.removeprefix(prefix) for name in imported(path) if name.startswith(prefix)}
    found = {name if name in known else name.rpartition(".")[0] for name in names}
    return found & known - {""}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """A folder or module is in the table, and sees only what stands below it."""
    here = place_of(path)
    seen = {name.partition(".")[0] for name in modules(path)} - {here}
    if here in (ALONE, "__init__"):
        assert not seen
        return
    assert here in LEVEL, f"put {here} into its layer"
    if here in USERS_OF_THE_SERVER:
        seen -= {ALONE}
    assert {other for other in seen if LEVEL.get(other, len(LAYERS)) >= LEVEL[here]} == set()


def test_there_is_no_circle() -> None:
    """Within a folder, too, imports have a direction."""
    graph = {name_of(path): modules(path) - {name_of(path)} for path in FILES}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_foreign_libraries_stay_in_their_places(path: Path) -> None:
    """Django, `requests` and `httptools` are known only to those who speak to them."""
    roots = {name.partition(".")[0] for name in imported(path)}
    strangers = [name for name, users in USERS.items() if place_of(path) not in users]
    assert not roots & set(strangers)


def test_the_package_itself_imports_nothing() -> None:
    """Importing the package costs nothing and needs no settings."""
    assert list(imported(PACKAGE / "__init__.py")) == []


@pytest.mark.parametrize("folder", ["_client", "_conf", "_diagnostics", "_http", "_store"])
def test_a_folder_says_what_it_knows(folder: str) -> None:
    """Each folder's docstring says what it knows and what it does not, and does nothing else."""
    tree = ast.parse((PACKAGE / folder / "__init__.py").read_text())
    assert len(tree.body) == 1
    said = ast.get_docstring(tree) or ""
    assert "It knows" in said
    assert "nothing of" in said or "never by" in said


def test_no_class_has_two_meanings() -> None:
    """A public class name stands for one class, in the client and in the local server."""
    names = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name not in ("Meta", "Command")
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_an_import_inside_a_function_is_found(tmp_path: Path) -> None:
    """The reader of imports sees the hidden ones and the relative ones."""
    path = PACKAGE / "made_up.py"
    tree = "def f():\n    from . import cache\n    from .store import Store\n    import a.b\n"
    fake = tmp_path / "made_up.py"
    fake.write_text(tree)

    class Here(type(path)):  # type: ignore[misc]
        def read_text(self, *_: object, **__: object) -> str:  # type: ignore[override]
            return tree

    assert set(imported(Here(path))) == {
        "django_momento_http.cache",
        "django_momento_http.store.Store",
        "a.b",
    }
