"""Imports point down: the rooms of the house, lowest first, and who may see whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_momento_http

PACKAGE = Path(django_momento_http.__file__).parent

# Lowest first. A module may import those of lower layers, and those before it in its own.
LAYERS = [
    ["exceptions", "interrupts", "frames", "regions", "flight", "polling", "counters", "hedging"],
    ["process", "workers"],
    ["parsers", "registry"],
    ["serializers", "compressors"],
    ["endpoints", "credentials", "failures", "replies", "calls"],
    ["envelope", "generation", "debts", "dues", "owed", "rules", "conf", "tokens"],
    ["namespace"],
    ["space", "on_error", "gates", "answers"],
    ["operation"],
    ["wire", "resolver", "connection"],
    ["pool", "fan"],
    ["transport"],
    ["client"],
    ["batch", "jobs"],
    ["runner"],
    ["values"],
    ["marker"],
    ["gateway"],
    ["writer"],
    ["store"],
    ["beside", "signing", "cache"],
    ["aliases", "checks", "diagnosis", "listener", "probe"],
    ["testing", "pytest_plugin", "apps", "management"],
]
ORDER = [module for layer in LAYERS for module in layer]
# It shares no code with the client, so that they cannot share a mistake.
ALONE = ["server"]
# Who may use the server: what wraps it for tests.
USERS_OF_THE_SERVER = {"testing"}
# Modules that must be readable without Django, and those that may know `requests`.
WITHOUT_DJANGO = set(ORDER[: ORDER.index("beside")])
WITHOUT_DJANGO -= {"conf", "credentials", "parsers", "registry"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def room(path: Path) -> str:
    """Return the module's name in the table; all of ``management`` is one."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


def ours(path: Path) -> set[str]:
    """Return which of our modules a file imports; the package itself holds only the version."""
    parts = [name.split(".") for name in imported(path)]
    names = {part[1] for part in parts if part[0] == "django_momento_http" and len(part) > 1}
    return names - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: room(path))
def test_imports_point_down(path: Path) -> None:
    """A module is in the table, and sees only what stands before it."""
    name = room(path)
    if name in ALONE:
        assert ours(path) <= {name}
        return
    assert name in ORDER, f"put {name} into its layer"
    allowed = set(ORDER[: ORDER.index(name)]) | ({name} if name == "management" else set())
    if name in USERS_OF_THE_SERVER:
        allowed |= {"server"}
    assert ours(path) <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda path: room(path))
def test_foreign_libraries_stay_in_their_rooms(path: Path) -> None:
    """Django, `requests` and `httptools` are known only where their words are spoken."""
    roots = {name.partition(".")[0] for name in imported(path)}
    if room(path) in WITHOUT_DJANGO:
        assert "django" not in roots
    if room(path) != "transport":
        assert not roots & {"requests", "urllib3"}
    if room(path) not in {"replies", "connection", "server"}:
        assert "httptools" not in roots


def test_the_package_itself_imports_nothing() -> None:
    """Importing the package costs nothing and needs no settings."""
    assert list(imported(PACKAGE / "__init__.py")) == []


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
