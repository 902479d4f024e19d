"""What a change of the sources means to those who write Python: each rule with an example."""

# ruff: noqa: E501 - one row of a table is one line

import ast
import re
import shutil
from pathlib import Path

import pytest

import techforge
from changes.sdk import RULES, _Comparison, compare
from changes.surface import Surface

ROOT = Path(__file__).parents[2]
IMPACTS = {"!": "breaking", "+": "additive", ".": "doc-only"}
IMPORTS = """
import abc
from collections.abc import Callable
from enum import StrEnum
from typing import List, NotRequired, Optional, Protocol, Required, TypedDict, TypeVar, Union
from attrs import define, field, frozen
"""


def write(root: Path, wrapper: str = "", generated: str = "") -> Path:
    """Write a source tree; its public names are those that the sources define without an underscore."""
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
        module.write_text(f"{IMPORTS}{source}\n__all__ = {public}\n", encoding="utf-8")
    return root


# rule || before || after || changes; ⏎ is the end of a line
TABLE = r'''
nothing || def f(a: int) -> int: ... || def f(a: int) -> int: return a + 1 ||
removed || def f(): ...⏎def g(a): ... || def f(): ... || !g: removed
added ||  || def f(): ... || +f: added
renamed || def f(): ...⏎def take(a: int): ...⏎def other(): ... || def f(): ...⏎def fetch(a: int): ...⏎def another(b: int): ...⏎def takes(a: int): ... || +another: added && +fetch: added && +takes: added && !other: removed && !take: removed; renamed to takes?
a class renamed || class A:⏎  a: int⏎  b: int⏎class C: ... || class B:⏎  a: str⏎  b: int⏎class X: ... || +B: added && +X: added && !A: removed; renamed to B? && !C: removed; renamed to X?
another kind || class A:⏎  def b(self): ... || def A(): ... || !A: changed from class to function
a method became a property || class A:⏎  def b(self) -> int: ... || class A:⏎  @property⏎  def b(self) -> int: ... || !A.b: changed from function to attribute
another way to call || def f(): ...⏎class A:⏎  def g(self): ... || async def f(): ...⏎class A:⏎  @classmethod⏎  def g(self): ... || !A.g: changed from a plain function to classmethod && !f: changed from a plain function to async
parameter added || def f(a: int): ... || def f(a: int, *, b: int = 0): ... || +f(b): added
required parameter added || def f(a: int): ... || def f(a: int, *, b: int): ... || !f(b): added, and required
parameter removed || def f(a: int, b: str): ... || def f(a: int): ... || !f(b): removed
parameter renamed || def f(a: int, *, language: str = ''): ... || def f(a: int, *, lang: str = ''): ... || +f(lang): added && !f(language): removed; renamed to lang?
parameter taken by ** || def f(*, a: int): ... || def f(**more: int): ... || +f(more): added
parameter newly required || def f(a: int = 0): ... || def f(a: int): ... || !f(a): newly required
parameter no longer required || def f(a: int): ... || def f(a: int = 0): ... || +f(a): no longer required
parameter by keyword only || def f(a: int): ... || def f(*, a: int): ... || !f(a): can no longer be given by position, or by keyword
parameters in another order || def f(a: int, b: int): ... || def f(b: int, a: int): ... || !f(a): moved among the positional parameters && !f(b): moved among the positional parameters
another default || _D = 1⏎def f(a: int = _D): ... || _D = 2⏎def f(a: int = _D): ... || !f(a): default changed from 1 to 2
parameter widened || def f(a: int): ... || def f(a: int | None): ... || +f(a): widened: int to None | int
parameter narrowed || def f(a: Union[int, str]): ... || def f(a: str): ... || !f(a): narrowed: int | str to str
parameter retyped || def f(a: list[int]): ... || def f(a: list[str]): ... || !f(a): retyped: list[int] to list[str]
the same type in other words || def f(a: Optional[int]) -> List[int]: ... || def f(a: None | int) -> list[int]: ... ||
a private alias of a type || _F = Callable[[int], None]⏎def f(a: _F): ... || _F = Callable[[str], None]⏎def f(a: _F): ... || !f(a): retyped: collections.abc.Callable[[int], None] to collections.abc.Callable[[str], None]
result widened || def f() -> int: ... || def f() -> int | None: ... || !f: result widened: int to None | int
result narrowed || def f() -> int | None: ... || def f() -> int: ... || +f: result narrowed: None | int to int
result retyped || def f() -> int: ... || def f() -> str: ... || !f: result retyped: int to str
attribute retyped || class A:⏎  a: int⏎  def __init__(self, b: str):⏎    self.b = b || class A:⏎  a: str⏎  def __init__(self, b: str | None):⏎    self.b = b || +A(b): widened: str to None | str && !A.a: retyped: int to str && !A.b: widened: str to None | str
attribute narrowed || class A:⏎  a: int | None || class A:⏎  a: int || +A.a: narrowed: None | int to int
attribute set by __init__ || class A:⏎  def __init__(self):⏎    self.a = 1⏎    self.b = 2 || class A:⏎  def __init__(self):⏎    self.a = 1 || !A.b: removed
the class of an attribute || class _B:⏎  def f(self): ...⏎class A:⏎  b: _B || class _C:⏎  def g(self, a: int): ...⏎class A:⏎  b: _C || +A.b.g: added && !A.b: retyped: _B to _C && !A.b.f: removed
constructor || class A: ... || class A:⏎  def __init__(self, a: int): ... || !A(a): added, and required
inherited || class _A:⏎  def f(self): ...⏎class B(_A): ...⏎class C(B): ... || class _A: ...⏎class B(_A): ...⏎class C(B): ... || !B.f: removed
a change that is inherited || class _A:⏎  def f(self, a: int): ...⏎class B(_A): ...⏎class C(B): ... || class _A:⏎  def f(self): ...⏎class B(_A): ...⏎class C(B): ... || !B.f(a): removed
moved to a base || class A:⏎  def f(self): ... || class _Z:⏎  def f(self): ...⏎class A(_Z): ... ||
fields of attrs || @frozen⏎class A:⏎  a: int⏎  b: int = 0 || @frozen⏎class A:⏎  a: int | None⏎  c: str⏎  d: dict = field(factory=dict)⏎  e: int = field(init=False) || +A.d: added && +A.e: added && !A.a: widened: int to None | int && !A.b: removed && !A.c: added, and required
a field of attrs in between || @frozen⏎class A:⏎  a: int = 0⏎  b: int = 0 || @frozen⏎class A:⏎  a: int = 0⏎  z: int = 0⏎  b: int = 0 || +A.z: added && !A.b: moved among the positional parameters
fields by keyword in between || @define(kw_only=True)⏎class A:⏎  a: int = 0⏎  b: int = 0 || @define(kw_only=True)⏎class A:⏎  a: int = 0⏎  z: int = 0⏎  b: int = 0 || +A.z: added
fields of a base || @define⏎class _A:⏎  a: int⏎@define⏎class B(_A):⏎  z: int = 0⏎class C(_A): ... || @define⏎class _A:⏎  a: int⏎  b: int⏎@define⏎class B(_A):⏎  z: int = 1⏎class C(_A): ... || !B.b: added, and required && !B.z: default changed from 0 to 1 && !B.z: moved among the positional parameters && !C.b: added, and required
a type variable || _T = TypeVar('_T')⏎def f(a: list[_T]): ... || _T = TypeVar('_T')⏎def f(a: set[_T]): ... || !f(a): retyped: list[_T] to set[_T]
keys of a typed dict || class A(TypedDict, total=False):⏎  a: Required[str]⏎  b: str⏎  c: str⏎  d: str || class A(TypedDict, total=False):⏎  a: str⏎  b: Required[str]⏎  c: str | None⏎  e: Required[str]⏎  f: int || +A.a: no longer required && +A.c: widened: str to None | str && +A.f: added && !A.b: newly required && !A.d: removed && !A.e: added, and required
a total typed dict || class A(TypedDict):⏎  a: str || class A(TypedDict):⏎  a: str⏎  b: NotRequired[str]⏎  c: str || +A.b: added && !A.c: added, and required
what users implement || class A(Protocol):⏎  def f(self, a: int): ...⏎class B(abc.ABC): ... || class A(Protocol):⏎  def f(self, a: int | str): ...⏎  def g(self): ...⏎class B(abc.ABC):⏎  @abc.abstractmethod⏎  def h(self): ...⏎  def i(self): ... || +B.i: added && !A.f(a): widened: int to int | str, and users implement it && !A.g: added, and users implement it && !B.h: added, and users implement it
what implements a protocol itself || class A(Protocol): ...⏎class B(A): ... || class A(Protocol): ...⏎class B(A):⏎  def g(self): ... || +B.g: added
members of an enum || class A(StrEnum):⏎  B = 'b'⏎  C = 'c' || class A(StrEnum):⏎  B = 'x'⏎  D = 'd' || +A.D: added && !A.B: value changed from 'b' to 'x' && !A.C: removed
bases || class A(Exception): ...⏎class B(ValueError, A): ... || class A(Exception, TimeoutError): ...⏎class B(A): ... || +A: now also a TimeoutError && !B: no longer a ValueError
a base in between || class A(Exception): ...⏎class B(A): ... || class A(Exception): ...⏎class _Z(A): ...⏎class B(_Z): ... ||
constants || __version__ = '1'⏎A = 1 || __version__ = '2'⏎A = 2 || !A: value changed from 1 to 2
documentation || def f():⏎  "One."⏎class A:⏎  a: int⏎  """One.""" || def f():⏎  "Two."⏎class A:⏎  a: int⏎  """Two.""" || .A.a: documentation changed && .f: documentation changed
documentation of what has changed || def f() -> int:⏎  "One." || def f() -> str:⏎  "Two." || !f: result retyped: int to str
private || def _f(): ...⏎class A:⏎  _a: int⏎  def _g(self): ... || class A: ... ||
'''


def table() -> list[list[str]]:
    """Return the rows of the table."""
    return [
        [cell.strip().replace("⏎", "\n") for cell in row.split("||")] for row in TABLE.strip().splitlines()
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"), [row[1:] for row in table()], ids=[row[0] for row in table()]
)
def test_a_rule(before: str, after: str, expected: str, tmp_path: Path) -> None:
    """The report has the changes of each example, and nothing else."""
    changes = compare(write(tmp_path / "old", before), write(tmp_path / "new", after))
    told = (each.strip() for each in expected.split("&&") if each)
    assert list(map(str, changes)) == [f"{IMPACTS[each[0]]}: techforge.{each[1:]}" for each in told]


def test_every_rule_has_an_example() -> None:
    """A rule whose message no row of the table has is not needed, or not tested."""
    messages = {name: message.partition("{")[0] or "users implement" for name, (_, message) in RULES.items()}
    # `test_another_error_body` has the example of the other one.
    assert [name for name, message in messages.items() if message not in TABLE] == ["errors widened"]


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

    left = Surface(copy)
    changes = _Comparison(real, left).changes()
    found = {change.where for change in changes if change.what.startswith("removed")}
    assert len(own) > 200
    # A method may set an attribute that was declared as well.
    assert own.keys() - left.things.keys() - found == set()


def _stands_alone(surface: Surface, where: str) -> bool:
    """Tell whether a thing can be taken out of its class, or out of a module that lists no names."""
    thing, parent = surface.things[where], surface.things.get(where.rpartition(".")[0])
    member = thing.kind.value in {"function", "attribute"} and thing.name != "__init__" and thing.lineno
    return bool(member) and thing.parent is parent and getattr(parent, "exports", None) is None


OPERATION = """
from .models import Accepted, Error, Ids, Problem, Request
from .types import Response

def _parse_response(*, response) -> {result} | None:
    if response.status_code == 202:
        return Accepted.from_dict(response.json())
    if response.status_code == 400:
        return Error.from_dict(response.json())
    {case}
    return None

def sync(*, body: Request) -> {result} | None: ...

def sync_detailed(*, body: Request) -> Response[{result}]: ...
"""
MODELS = """
from attrs import define

class Error: ...
class Problem: ...

@define
class Ids:
    number: int{0}

@define
class Accepted:
    ids: Ids

@define
class Request:
    language: str{0}

__all__ = ["Accepted", "Error", "Ids", "Problem", "Request"]
"""


def generated(root: Path, *, result: str = "Accepted | Error", case: str = "", wider: str = "") -> Path:
    """Write a source tree with one generated operation."""
    write(root)
    package = root / "generated" / "techforge_api"
    (package / "api").mkdir()
    (package / "api" / "__init__.py").touch()
    source = OPERATION.format(result=result, case=case).replace("from .", "from ..")
    (package / "api" / "create.py").write_text(source, encoding="utf-8")
    (package / "models.py").write_text(MODELS.format(wider), encoding="utf-8")
    (package / "types.py").write_text("class Response[T]: ...\n__all__ = ['Response']\n".replace("[T]", ""))
    return root


@pytest.mark.parametrize(
    ("status", "impact"), [("== 422", "additive"), ("== 200", "breaking"), ("<= 299", "breaking")]
)
def test_another_error_body(tmp_path: Path, status: str, impact: str) -> None:
    """A model more for errors is additive: code that handles a success stays right. One for a success is not."""
    case = f"if 200 <= response.status_code {status}:\n        return Problem.from_dict(response.json())"
    case = case.replace("200 <= ", "" if "==" in status else "200 <= ")
    old = generated(tmp_path / "old")
    new = generated(tmp_path / "new", result="Accepted | Error | Problem", case=case)
    found = compare(old, new)
    assert {change.where for change in found} == {
        f"techforge_api.api.create.{name}" for name in ("sync", "sync_detailed")
    }
    assert {str(change.impact) for change in found} == {impact}


def test_what_only_requests_contain(tmp_path: Path) -> None:
    """A request that takes more breaks nobody; the same in a response breaks those who read it."""
    found = compare(generated(tmp_path / "old"), generated(tmp_path / "new", wider=" | None"))
    assert sorted(map(str, found)) == [
        "additive: techforge_api.models.Request.language: widened: str to None | str",
        "breaking: techforge_api.models.Ids.number: widened: int to None | int",
    ]
