"""The public names of a source tree. griffe reads it; nothing is imported.

Public are the names in `__all__` of modules without a leading underscore, the modules of `techforge_api.api`,
the members of all these, and the members of an attribute's class (`client.jobs` has those of `Jobs`).
"""

import ast
import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import cast

import griffe

PACKAGES = {"wrapper": "techforge", "generated": "techforge_api"}
OPERATIONS, MODELS = "techforge_api.api.", "techforge_api.models."
FIELDS = "fields"
"""The label of an `__init__` whose parameters are the fields of its class."""

Type = str | griffe.Expr | None

# Without a handler, Python prints griffe's remarks about private sources.
logging.getLogger("griffe").addHandler(logging.NullHandler())


class Surface:
    """The public names of the packages below wrapper/ and generated/."""

    def __init__(self, root: Path) -> None:
        self.things: dict[str, griffe.Object] = {}
        """What each public name refers to."""
        self._names: dict[str, str] = {}
        loader = griffe.GriffeLoader(
            search_paths=[root / folder for folder in PACKAGES],
            allow_inspection=False,
        )
        packages = [loader.load(package, try_relative_path=False) for package in PACKAGES.values()]
        loader.resolve_aliases()
        self._collection = loader.modules_collection
        for package in packages:
            self._export(package)
        for where, thing in list(self.things.items()):
            if isinstance(thing, griffe.Class):
                self._expand(where, thing, frozenset())

    def _export(self, module: griffe.Object | griffe.Alias) -> None:
        if module.name.startswith("_") or module.is_alias:
            return
        for submodule in module.modules.values():
            self._export(submodule)
        if module.exports is None and not module.path.startswith(OPERATIONS):
            return
        exports = module.exports
        if exports is None:
            exports = [name for name, member in module.members.items() if member.is_public]
        self.things[module.path] = _resolved(module, module.path)
        for name in map(str, exports):
            where = f"{module.path}.{name}"
            if name not in module.members:
                raise LookupError(f"{where} is listed, but not found: import it under `if TYPE_CHECKING:`")
            thing = self.things[where] = _resolved(module.members[name], where)
            known = self._names.get(thing.canonical_path)
            if known is None or where.count(".") < known.count("."):
                self._names[thing.canonical_path] = where

    def _expand(self, where: str, cls: griffe.Class, above: frozenset[str]) -> None:
        for each in reversed([cls, *cls.mro()]):
            _construct(each)
        for name, member in cls.all_members.items():
            # Python calls special methods; those of attrs are not for users.
            special = name.startswith("__") and member.is_function and not name.startswith("__attrs_")
            if name.startswith("_") and not special:
                continue
            # Users do not construct the class of an attribute.
            if name == "__init__" and above:
                continue
            thing = self.things[f"{where}.{name}"] = _resolved(member, f"{where}.{name}")
            leads_to = self._leads_to(thing)
            if leads_to and leads_to.path not in above | self._names.keys() | {cls.path}:
                self._expand(f"{where}.{name}", leads_to, above | {cls.path})

    def _leads_to(self, thing: griffe.Object) -> griffe.Class | None:
        type_ = type_of(thing)
        found = self._find(type_.canonical_path) if isinstance(type_, griffe.Expr) else None
        return found if isinstance(found, griffe.Class) else None

    def _find(self, path: str) -> griffe.Object | None:
        try:
            return _resolved(self._collection[path], path)
        except (KeyError, LookupError):
            return None

    @cached_property
    def received(self) -> set[str]:
        """The paths of the classes that users may receive, as results or in fields of results."""
        todo: list[Type] = [
            thing.returns
            for thing in self.things.values()
            if isinstance(thing, griffe.Function) and not thing.canonical_path.startswith(MODELS)
        ]
        found: set[str] = set()
        while todo:
            type_ = todo.pop()
            for name in type_.iterate() if isinstance(type_, griffe.Expr) else ():
                cls = self._find(name.canonical_path) if isinstance(name, griffe.Expr) else None
                if isinstance(cls, griffe.Class) and cls.canonical_path not in found:
                    found.add(cls.canonical_path)
                    members = cls.members.values()
                    todo += [type_of(member) for member in members if isinstance(member, griffe.Object)]
        return found

    def alternatives(self, type_: Type) -> frozenset[str]:
        """Return the members of a union; of any other type, itself."""
        if isinstance(type_, griffe.Expr):
            type_ = type_.modernize()
        if isinstance(type_, griffe.ExprBinOp) and type_.operator == "|":
            return self.alternatives(type_.left) | self.alternatives(type_.right)
        if isinstance(type_, griffe.ExprName) and (alias := self._private_alias(type_)) is not None:
            return self.alternatives(alias)
        return frozenset({self.text(type_)})

    def text(self, type_: Type) -> str:
        """Return a type or a default as text, with public names instead of private modules."""
        if not isinstance(type_, griffe.Expr):
            return str(type_)
        if not isinstance(type_, griffe.ExprName | griffe.ExprAttribute):
            return "".join(map(self.text, type_.iterate(flat=False)))
        if (alias := self._private_alias(type_)) is not None:
            return self.text(alias)
        found = self._find(type_.canonical_path)
        if found is None:
            return type_.canonical_path
        return self._names.get(found.canonical_path, found.name)

    def _private_alias(self, name: griffe.Expr) -> Type:
        found = self._find(name.canonical_path)
        if not isinstance(found, griffe.Attribute) or found.canonical_path in self._names:
            return None
        # The name of a type variable says more than the call that makes it.
        return None if isinstance(found.value, griffe.ExprCall) else found.value

    def shape(self, where: str) -> str:
        """Return what a thing looks like without its name: if two look alike, it may have been renamed."""
        thing = self.things[where]
        if isinstance(thing, griffe.Function):
            parameters = [f"{p.name}: {self.text(p.annotation)}" for p in thing.parameters]
            return f"({', '.join(parameters)}) -> {self.text(thing.returns)}"
        if isinstance(thing, griffe.Attribute):
            return self.text(type_of(thing))
        inside = (name.removeprefix(where) for name in self.things if name.startswith(f"{where}."))
        return f"{thing.kind.value} of {sorted(inside)}"


def type_of(thing: griffe.Object) -> Type:
    """Return the type of an attribute, if its source has one."""
    if not isinstance(thing, griffe.Attribute):
        return None
    value = thing.value
    if thing.annotation is None and isinstance(value, griffe.ExprName):
        # `self.name = name` has the type of the parameter.
        method = value.parent
        if isinstance(method, griffe.Function) and value.name in method.parameters:
            return method.parameters[value.name].annotation
        return None
    return thing.annotation


def successes(function: griffe.Function) -> list[str]:
    """Return the code of a generated operation that reads a 2xx or any status; none for other functions."""
    parse = (
        function.parent.members.get("_parse_response") if isinstance(function.parent, griffe.Module) else None
    )
    if not function.canonical_path.startswith(OPERATIONS) or not isinstance(parse, griffe.Function):
        return []
    (tree,) = ast.parse(parse.source).body
    return [ast.dump(each) for each in cast("ast.FunctionDef", tree).body if not _is_for_errors(each)]


def _is_for_errors(statement: ast.stmt) -> bool:
    """Return whether a statement is the case of a status outside 2xx."""
    if not isinstance(statement, ast.If):
        return False
    statuses = [each.value for each in ast.walk(statement.test) if isinstance(each, ast.Constant)]
    return bool(statuses) and not any(200 <= int(cast("int", status)) < 300 for status in statuses)


def has_base(cls: griffe.Object, prefix: str, *, direct: bool = False) -> bool:
    """Return whether the full name of a base class starts with a prefix."""
    if not isinstance(cls, griffe.Class):
        return False
    bases = [base for each in ([cls] if direct else [cls, *cls.mro()]) for base in each.bases]
    return any(isinstance(base, griffe.Expr) and base.canonical_path.startswith(prefix) for base in bases)


def _resolved(member: griffe.Object | griffe.Alias, where: str) -> griffe.Object:
    try:
        target = member.final_target if isinstance(member, griffe.Alias) else member
    except (griffe.AliasResolutionError, griffe.CyclicAliasError) as error:
        raise LookupError(f"{where} comes from elsewhere, and cannot be looked into") from error
    return target


def _construct(cls: griffe.Class) -> None:
    """Add the `__init__` of attrs, TypedDict or `object` to a class."""
    if "__init__" in cls.members:
        return
    parameters = list(_fields(cls))
    if not parameters and "__init__" in cls.all_members:
        return
    self = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    init = griffe.Function("__init__", parameters=griffe.Parameters(self, *parameters))
    if parameters:
        init.labels.add(FIELDS)
    cls.set_member("__init__", init)


def _fields(cls: griffe.Class) -> Iterator[griffe.Parameter]:
    typed_dict = has_base(cls, "typing.TypedDict")
    decorators = [each for each in cls.decorators if each.callable_path in {"attrs.define", "attrs.frozen"}]
    if not typed_dict and not decorators:
        return
    by_keyword = (
        typed_dict
        or cls.package.name == PACKAGES["generated"]
        or any("kw_only" in _arguments(each.value) for each in decorators)
    )
    for base in cls.mro():
        yield from _fields(base)
    for member in cls.members.values():
        # Properties and ClassVars do not have this label.
        if not isinstance(member, griffe.Attribute) or "instance-attribute" not in member.labels:
            continue
        parameter = _key(cls, member) if typed_dict else _field(member)
        if parameter is not None:
            if by_keyword:
                parameter.kind = griffe.ParameterKind.keyword_only
            yield parameter


def _key(cls: griffe.Class, member: griffe.Attribute) -> griffe.Parameter:
    annotation = member.annotation
    required = cls.keywords.get("total") != "False"
    if isinstance(annotation, griffe.ExprSubscript):
        qualifier = annotation.canonical_path.rpartition(".")[2]
        if qualifier in {"Required", "NotRequired"}:
            annotation, required = annotation.slice, qualifier == "Required"
    return griffe.Parameter(member.name, annotation=annotation, default=None if required else "not given")


def _field(member: griffe.Attribute) -> griffe.Parameter | None:
    default, options = member.value, _arguments(member.value)
    if member.annotation is None or options.get("init") == "False":
        return None
    if isinstance(default, griffe.ExprCall) and default.canonical_path == "attrs.field":
        default = options.get("default", options.get("factory"))
    kinds = griffe.ParameterKind
    kind = kinds.keyword_only if "kw_only" in options else kinds.positional_or_keyword
    return griffe.Parameter(member.name.lstrip("_"), annotation=member.annotation, kind=kind, default=default)


def _arguments(call: Type) -> dict[str, str | griffe.Expr]:
    if not isinstance(call, griffe.ExprCall):
        return {}
    return {each.name: each.value for each in call.arguments if isinstance(each, griffe.ExprKeyword)}
