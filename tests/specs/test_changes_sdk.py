"""What a change of the sources means to those who write Python."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import techforge
from changes import Impact
from changes.sdk import _Comparison, compare
from changes.surface import Surface

ROOT = Path(__file__).parents[2]


def write(root: Path, wrapper: str = "", generated: str = "") -> Path:
    """Write a source tree whose public names are those that the sources define without an underscore."""
    for folder, package, source in (
        ("wrapper", "techforge", wrapper),
        ("generated", "techforge_api", generated),
    ):
        module = root / folder / package / "__init__.py"
        module.parent.mkdir(parents=True)
        names: list[str] = []
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.append(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                names += re.findall(r"^\w+", ast.unparse(node))
        public = [name for name in names if not name.startswith("_") or name == "__version__"]
        module.write_text(f"{source}\n__all__ = {public}\n", encoding="utf-8")
    return root


RULES = {
    "nothing": ("def f(a: int) -> int: ...", "def f(a: int) -> int: return a + 1", []),
    "removed": ("def f(): ...\ndef g(a): ...", "def f(): ...", ["breaking: techforge.g: removed"]),
    "added": ("", "def f(): ...", ["additive: techforge.f: added"]),
    "renamed": (
        "def f(): ...\ndef take(a: int): ...\ndef other(): ...",
        "def f(): ...\ndef fetch(a: int): ...\ndef another(b: int): ...\ndef takes(a: int): ...",
        [
            "additive: techforge.another: added",
            "additive: techforge.fetch: added",
            "additive: techforge.takes: added",
            "breaking: techforge.other: removed",
            "breaking: techforge.take: removed; renamed to takes?",
        ],
    ),
    "a class renamed": (
        "class A:\n  a: int\n  b: int\nclass C: ...",
        "class B:\n  a: str\n  b: int\nclass X: ...",
        [
            "additive: techforge.B: added",
            "additive: techforge.X: added",
            "breaking: techforge.A: removed; renamed to B?",
            "breaking: techforge.C: removed; renamed to X?",
        ],
    ),
    "another kind": (
        "class A:\n  def b(self): ...",
        "def A(): ...",
        ["breaking: techforge.A: changed from class to function"],
    ),
    "a method became a property": (
        "class A:\n  def b(self) -> int: ...",
        "class A:\n  @property\n  def b(self) -> int: ...",
        ["breaking: techforge.A.b: changed from function to attribute"],
    ),
    "another way to call": (
        "def f(): ...\nclass A:\n  def g(self): ...",
        "async def f(): ...\nclass A:\n  @classmethod\n  def g(self): ...",
        [
            "breaking: techforge.A.g: changed from a plain function to classmethod",
            "breaking: techforge.f: changed from a plain function to async",
        ],
    ),
    "parameter added": (
        "def f(a: int): ...",
        "def f(a: int, *, b: int = 0): ...",
        ["additive: techforge.f(b): added"],
    ),
    "required parameter added": (
        "def f(a: int): ...",
        "def f(a: int, *, b: int): ...",
        ["breaking: techforge.f(b): added, and required"],
    ),
    "parameter removed": (
        "def f(a: int, b: str): ...",
        "def f(a: int): ...",
        ["breaking: techforge.f(b): removed"],
    ),
    "parameter renamed": (
        "def f(a: int, *, language: str = ''): ...",
        "def f(a: int, *, lang: str = ''): ...",
        ["additive: techforge.f(lang): added", "breaking: techforge.f(language): removed; renamed to lang?"],
    ),
    "parameter taken by **": (
        "def f(*, a: int): ...",
        "def f(**more: int): ...",
        ["additive: techforge.f(more): added"],
    ),
    "parameter newly required": (
        "def f(a: int = 0): ...",
        "def f(a: int): ...",
        ["breaking: techforge.f(a): newly required"],
    ),
    "parameter no longer required": (
        "def f(a: int): ...",
        "def f(a: int = 0): ...",
        ["additive: techforge.f(a): no longer required"],
    ),
    "parameter by keyword only": (
        "def f(a: int): ...",
        "def f(*, a: int): ...",
        ["breaking: techforge.f(a): can no longer be given by position, or by keyword"],
    ),
    "parameters in another order": (
        "def f(a: int, b: int): ...",
        "def f(b: int, a: int): ...",
        [
            "breaking: techforge.f(a): moved among the positional parameters",
            "breaking: techforge.f(b): moved among the positional parameters",
        ],
    ),
    "another default": (
        "_D = 1\ndef f(a: int = _D): ...",
        "_D = 2\ndef f(a: int = _D): ...",
        ["breaking: techforge.f(a): default changed from 1 to 2"],
    ),
    "parameter widened": (
        "def f(a: int): ...",
        "def f(a: int | None): ...",
        ["additive: techforge.f(a): widened: int to None | int"],
    ),
    "parameter narrowed": (
        "from typing import Union\ndef f(a: Union[int, str]): ...",
        "def f(a: str): ...",
        ["breaking: techforge.f(a): narrowed: int | str to str"],
    ),
    "parameter retyped": (
        "def f(a: list[int]): ...",
        "def f(a: list[str]): ...",
        ["breaking: techforge.f(a): retyped: list[int] to list[str]"],
    ),
    "the same type in other words": (
        "from typing import Optional, List\ndef f(a: Optional[int]) -> List[int]: ...",
        "def f(a: None | int) -> list[int]: ...",
        [],
    ),
    "a private alias of a type": (
        "from collections.abc import Callable\n_F = Callable[[int], None]\ndef f(a: _F): ...",
        "from collections.abc import Callable\n_F = Callable[[str], None]\ndef f(a: _F): ...",
        [
            (
                "breaking: techforge.f(a): retyped: collections.abc.Callable[[int], None] to "
                "collections.abc.Callable[[str], None]"
            )
        ],
    ),
    "result widened": (
        "def f() -> int: ...",
        "def f() -> int | None: ...",
        ["breaking: techforge.f: result widened: int to None | int"],
    ),
    "result narrowed": (
        "def f() -> int | None: ...",
        "def f() -> int: ...",
        ["additive: techforge.f: result narrowed: None | int to int"],
    ),
    "result retyped": (
        "def f() -> int: ...",
        "def f() -> str: ...",
        ["breaking: techforge.f: result retyped: int to str"],
    ),
    "attribute retyped": (
        "class A:\n  a: int\n  def __init__(self, b: str):\n    self.b = b",
        "class A:\n  a: str\n  def __init__(self, b: str | None):\n    self.b = b",
        [
            "additive: techforge.A(b): widened: str to None | str",
            "breaking: techforge.A.a: retyped: int to str",
            "breaking: techforge.A.b: widened: str to None | str",
        ],
    ),
    "attribute narrowed": (
        "class A:\n  a: int | None",
        "class A:\n  a: int",
        ["additive: techforge.A.a: narrowed: None | int to int"],
    ),
    "attribute set by a method": (
        "class A:\n  def _use(self):\n    self.a = 1\n    self.b = 2",
        "class A:\n  def _use(self):\n    self.a = 1",
        ["breaking: techforge.A.b: removed"],
    ),
    "what an attribute leads to": (
        (
            "class _B:\n  def __init__(self, x): ...\n  def f(self): ...\n"
            "class A:\n  def _use(self):\n    self.b = _B(1)"
        ),
        (
            "class _C:\n  def __init__(self): ...\n  def g(self, a: int): ...\n"
            "class A:\n  def _use(self):\n    self.b = _C()"
        ),
        [
            "additive: techforge.A.b.g: added",
            "breaking: techforge.A.b: retyped: _B to _C",
            "breaking: techforge.A.b.f: removed",
        ],
    ),
    "constructor": (
        "class A: ...",
        "class A:\n  def __init__(self, a: int): ...",
        ["breaking: techforge.A(a): added, and required"],
    ),
    "inherited": (
        "class _A:\n  def f(self): ...\nclass B(_A): ...\nclass C(B): ...",
        "class _A: ...\nclass B(_A): ...\nclass C(B): ...",
        ["breaking: techforge.B.f: removed"],
    ),
    "a change that is inherited": (
        "class _A:\n  def f(self, a: int): ...\nclass B(_A): ...\nclass C(B): ...",
        "class _A:\n  def f(self): ...\nclass B(_A): ...\nclass C(B): ...",
        ["breaking: techforge.B.f(a): removed"],
    ),
    "moved to a base": (
        "class A:\n  def f(self): ...",
        "class _Z:\n  def f(self): ...\nclass A(_Z): ...",
        [],
    ),
    "fields of attrs": (
        "from attrs import frozen\n@frozen\nclass A:\n  a: int\n  b: int = 0",
        (
            "from attrs import field, frozen\n@frozen\nclass A:\n  a: int | None\n  c: str\n"
            "  d: dict = field(factory=dict)\n  e: int = field(init=False)"
        ),
        [
            "additive: techforge.A.d: added",
            "additive: techforge.A.e: added",
            "breaking: techforge.A.a: widened: int to None | int",
            "breaking: techforge.A.b: removed",
            "breaking: techforge.A.c: added, and required",
        ],
    ),
    "a field of attrs in between": (
        "from attrs import frozen\n@frozen\nclass A:\n  a: int = 0\n  b: int = 0",
        "from attrs import frozen\n@frozen\nclass A:\n  a: int = 0\n  z: int = 0\n  b: int = 0",
        [
            "additive: techforge.A.z: added",
            "breaking: techforge.A.b: moved among the positional parameters",
        ],
    ),
    "fields by keyword in between": (
        "from attrs import define\n@define(kw_only=True)\nclass A:\n  a: int = 0\n  b: int = 0",
        "from attrs import define\n@define(kw_only=True)\nclass A:\n  a: int = 0\n  z: int = 0\n  b: int = 0",
        ["additive: techforge.A.z: added"],
    ),
    "fields of a base": (
        (
            "from attrs import define\n@define\nclass _A:\n  a: int\n"
            "@define\nclass B(_A):\n  z: int = 0\nclass C(_A): ..."
        ),
        (
            "from attrs import define\n@define\nclass _A:\n  a: int\n  b: int\n"
            "@define\nclass B(_A):\n  z: int = 1\nclass C(_A): ..."
        ),
        [
            "breaking: techforge.B.b: added, and required",
            "breaking: techforge.B.z: default changed from 0 to 1",
            "breaking: techforge.B.z: moved among the positional parameters",
            "breaking: techforge.C.b: added, and required",
        ],
    ),
    "a type variable": (
        "from typing import TypeVar\n_T = TypeVar('_T')\ndef f(a: list[_T]): ...",
        "from typing import TypeVar\n_T = TypeVar('_T')\ndef f(a: set[_T]): ...",
        ["breaking: techforge.f(a): retyped: list[_T] to set[_T]"],
    ),
    "keys of a typed dict": (
        (
            "from typing import Required, TypedDict\nclass A(TypedDict, total=False):\n"
            "  a: Required[str]\n  b: str\n  c: str\n  d: str"
        ),
        (
            "from typing import Required, TypedDict\nclass A(TypedDict, total=False):\n"
            "  a: str\n  b: Required[str]\n  c: str | None\n  e: Required[str]\n  f: int"
        ),
        [
            "additive: techforge.A.a: no longer required",
            "additive: techforge.A.c: widened: str to None | str",
            "additive: techforge.A.f: added",
            "breaking: techforge.A.b: newly required",
            "breaking: techforge.A.d: removed",
            "breaking: techforge.A.e: added, and required",
        ],
    ),
    "a total typed dict": (
        "from typing import TypedDict\nclass A(TypedDict):\n  a: str",
        (
            "from typing import NotRequired, TypedDict\nclass A(TypedDict):\n"
            "  a: str\n  b: NotRequired[str]\n  c: str"
        ),
        ["additive: techforge.A.b: added", "breaking: techforge.A.c: added, and required"],
    ),
    "what users implement": (
        (
            "from typing import Protocol\nimport abc\nclass A(Protocol):\n  def f(self, a: int): ...\n"
            "class B(abc.ABC): ..."
        ),
        (
            "from typing import Protocol\nimport abc\n"
            "class A(Protocol):\n  def f(self, a: int | str): ...\n  def g(self): ...\n"
            "class B(abc.ABC):\n  @abc.abstractmethod\n  def h(self): ...\n  def i(self): ..."
        ),
        [
            "additive: techforge.B.i: added",
            "breaking: techforge.A.f(a): widened: int to int | str, and users implement it",
            "breaking: techforge.A.g: added, and users implement it",
            "breaking: techforge.B.h: added, and users implement it",
        ],
    ),
    "what implements a protocol itself": (
        "from typing import Protocol\nclass A(Protocol): ...\nclass B(A): ...",
        "from typing import Protocol\nclass A(Protocol): ...\nclass B(A):\n  def g(self): ...",
        ["additive: techforge.B.g: added"],
    ),
    "members of an enum": (
        "from enum import StrEnum\nclass A(StrEnum):\n  B = 'b'\n  C = 'c'",
        "from enum import StrEnum\nclass A(StrEnum):\n  B = 'x'\n  D = 'd'",
        [
            "additive: techforge.A.D: added",
            "breaking: techforge.A.B: value changed from 'b' to 'x'",
            "breaking: techforge.A.C: removed",
        ],
    ),
    "bases": (
        "class A(Exception): ...\nclass B(ValueError, A): ...",
        "class A(Exception, TimeoutError): ...\nclass B(A): ...",
        [
            "additive: techforge.A: now also a TimeoutError",
            "breaking: techforge.B: no longer a ValueError",
        ],
    ),
    "a base in between": (
        "class A(Exception): ...\nclass B(A): ...",
        "class A(Exception): ...\nclass _Z(A): ...\nclass B(_Z): ...",
        [],
    ),
    "constants": (
        "__version__ = '1'\nA = 1",
        "__version__ = '2'\nA = 2",
        ["breaking: techforge.A: value changed from 1 to 2"],
    ),
    "documentation": (
        'def f():\n  "One."\nclass A:\n  a: int\n  """One."""',
        'def f():\n  "Two."\nclass A:\n  a: int\n  """Two."""',
        [
            "doc-only: techforge.A.a: documentation changed",
            "doc-only: techforge.f: documentation changed",
        ],
    ),
    "documentation of what has changed": (
        'def f() -> int:\n  "One."',
        'def f() -> str:\n  "Two."',
        ["breaking: techforge.f: result retyped: int to str"],
    ),
    "private": (
        "def _f(): ...\nclass A:\n  _a: int\n  def _g(self): ...",
        "class A: ...",
        [],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule(rule: str, tmp_path: Path) -> None:
    """Each rule of `changes.sdk` says what its example says, and nothing else."""
    before, after, expected = RULES[rule]
    old, new = write(tmp_path / "old", before), write(tmp_path / "new", after)

    assert [str(change) for change in compare(old, new)] == expected


def test_generated_fields_are_given_by_keyword(tmp_path: Path) -> None:
    """The contract may put a new field anywhere; one without a default is required."""
    head = "from attrs import define as _define\n@_define\nclass A:\n  a: int\n  b: int = 0\n"
    old = write(tmp_path / "old", generated=head)
    new = write(tmp_path / "new", generated=head.replace("  a: int\n", "  c: int\n  a: int\n  d: int = 0\n"))

    assert [str(change) for change in compare(old, new)] == [
        "additive: techforge_api.A.d: added",
        "breaking: techforge_api.A.c: added, and required",
    ]


def test_where_a_thing_is_kept_does_not_matter(tmp_path: Path) -> None:
    """Another private module is no change; what is listed is public, whatever its own module lists."""
    for tree, module, parameters in (
        ("a", "_a", "x: X, y: int"),
        ("b", "_b", "x: X, y: int"),
        ("c", "_b", "x: X"),
    ):
        package = write(tmp_path / tree) / "wrapper" / "techforge"
        source = f"__all__ = ['X']\nclass X: ...\ndef f({parameters}) -> X: ...\n"
        (package / f"{module}.py").write_text(source, encoding="utf-8")
        source = f"from techforge.{module} import X, f\n__all__ = ['X', 'f']\n"
        (package / "__init__.py").write_text(source, encoding="utf-8")

    assert compare(tmp_path / "a", tmp_path / "b") == []
    assert [str(change) for change in compare(tmp_path / "a", tmp_path / "c")] == [
        "breaking: techforge.f(y): removed"
    ]


def test_a_listed_name_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A name that only `__getattr__` knows would be compared with nothing, and nobody would know."""
    root = write(tmp_path)
    (root / "wrapper" / "techforge" / "__init__.py").write_text("__all__ = ['Late']", encoding="utf-8")

    with pytest.raises(LookupError, match=r"techforge\.Late is listed, but not found: .*TYPE_CHECKING"):
        compare(root, root)


@pytest.fixture(scope="module")
def real() -> Surface:
    """The surface of this checkout."""
    return Surface(ROOT)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this checkout's sources, to change."""
    for folder in ("wrapper", "generated"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_tree_equals_itself(copy: Path) -> None:
    """No change is found where there is none, wherever the tree lies."""
    assert compare(ROOT, copy) == []


def test_every_public_name_is_seen(real: Surface) -> None:
    """What `__all__` lists, and what a client has, is compared."""
    assert {f"techforge.{name}" for name in techforge.__all__} <= real.things.keys()
    with techforge.TechForge("key") as client:
        for path, thing in {"": client, ".jobs": client.jobs, ".storage": client.storage}.items():
            names = {name for name in dir(thing) if not name.startswith("_")}
            assert {f"techforge.TechForge{path}.{name}" for name in names} <= real.things.keys()


@pytest.mark.parametrize("package", ["techforge", "techforge.mock", "techforge_api", "techforge_api.models"])
def test_every_exported_name_is_missed(package: str, real: Surface, copy: Path) -> None:
    """Whichever name a module ceases to list, its removal is reported."""
    listed = sorted(where for where in real.things if where.rpartition(".")[0] == package)
    names = [where for where in listed if real.things[where].kind.value != "module"]
    folder = "generated" if package.startswith("techforge_api") else "wrapper"
    source = copy / folder / package.replace(".", os.sep) / "__init__.py"
    text = re.sub(r"__all__ = [\[(].*?[\])]\n", "__all__ = []\n", source.read_text("utf-8"), flags=re.DOTALL)
    source.write_text(text, encoding="utf-8")

    found = {change.where for change in compare(ROOT, copy) if change.impact is Impact.BREAKING}
    assert len(names) > 1
    assert set(names) <= found


def test_every_member_is_missed(real: Surface, copy: Path) -> None:
    """Whichever method, attribute or function of the real sources goes, its removal is reported."""
    own = {where: thing for where, thing in real.things.items() if _stands_alone(real, where)}
    lines: dict[Path, list[str]] = {}
    for thing in own.values():
        path = copy / Path(str(thing.filepath)).relative_to(ROOT)
        text = lines.setdefault(path, path.read_text("utf-8").splitlines())
        start = thing.lineno - 1
        while text[start - 1].lstrip().startswith("@"):
            start -= 1
        indent = " " * (len(text[start]) - len(text[start].lstrip()))
        text[start : thing.endlineno] = [f"{indent}pass", *[""] * (thing.endlineno - start - 1)]
    for path, text in lines.items():
        path.write_text("\n".join(text), encoding="utf-8")

    changes = _Comparison(real, Surface(copy)).changes()
    found = {change.where for change in changes if change.what.startswith("removed")}
    assert len(own) > 200
    assert own.keys() - found == set()


def test_says_nothing_by_itself() -> None:
    """What griffe remarks about our sources is no matter to whoever compares them, and is not printed."""
    program = "import pathlib; from changes.surface import Surface; Surface(pathlib.Path().resolve().parent)"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT / "scripts", check=True, capture_output=True, encoding="utf-8")

    assert (done.stdout, done.stderr) == ("", "")


def _stands_alone(surface: Surface, where: str) -> bool:
    """Tell whether a thing can be taken out of its class, or out of a module that lists no names."""
    thing, parent = surface.things[where], surface.things.get(where.rpartition(".")[0])
    member = thing.kind.value in {"function", "attribute"} and thing.name != "__init__" and thing.lineno
    return bool(member) and thing.parent is parent and getattr(parent, "exports", None) is None
