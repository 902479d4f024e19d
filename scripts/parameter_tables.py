"""List the parameters of each public function in the documentation: name, type, default and meaning."""

import re
from contextlib import suppress
from typing import Any

import griffe

# How an option's docstring names its default: "Default 60." or "`ai_talking_video` by default."
_DEFAULT = re.compile(r"\bDefault (\S+?)[,.](?:\s|$)|`(\w+)` by default")


class ParameterTables(griffe.UnpackTypedDictExtension):
    """Adds tables of parameters; `**options: Unpack[…]` becomes one row for each option.

    The meaning is what the docstring's section `Args` says or, for an option, the option's own docstring.
    """

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Give a function's docstring, or that of the class it initializes, a section of its parameters."""
        owner = func.parent if func.name == "__init__" and func.parent and func.parent.docstring else func
        # Parsed now, since the next line removes parameters that a docstring may describe.
        sections = owner.docstring.parsed if owner.docstring else []
        if owner is not func:
            _add_types(sections, func.parameters)
        super().on_function(func=func, **kwargs)
        if owner is not func:
            func.docstring = None  # its class is documented, not the method
        if owner.docstring is None or not func.is_public or (owner is not func and _is_ours_to_create(func)):
            return
        meanings: dict[str, str] = {}
        for section in [s for s in sections if s.kind is griffe.DocstringSectionKind.parameters]:
            meanings |= {entry.name.lstrip("*"): entry.description for entry in section.value}
            sections.remove(section)
        parameters = [parameter for parameter in func.parameters if parameter.name not in {"self", "cls"}]
        rows = [_row(parameter, meanings, func.modules_collection) for parameter in parameters]
        if rows:
            kinds = [section.kind for section in sections]
            raises = griffe.DocstringSectionKind.raises
            place = kinds.index(raises) if raises in kinds else len(sections)
            sections.insert(place, griffe.DocstringSectionParameters(rows))


def _is_ours_to_create(init: griffe.Function) -> bool:
    """Whether nobody else creates objects of a class: an error, or a class that needs a private object."""
    annotations = [p.annotation for p in init.parameters if isinstance(p.annotation, griffe.Expr)]
    is_private = any("._" in annotation.canonical_path for annotation in annotations)
    return is_private or (init.parent is not None and init.parent.name.endswith("Error"))


def _add_types(sections: list[griffe.DocstringSection], parameters: griffe.Parameters) -> None:
    """Give each attribute without a type the type of the parameter with its name."""
    for section in sections:
        if section.kind is griffe.DocstringSectionKind.attributes:
            for entry in section.value:
                if entry.annotation is None and entry.name in parameters:
                    entry.annotation = parameters[entry.name].annotation


def _row(
    parameter: griffe.Parameter, meanings: dict[str, str], modules: griffe.ModulesCollection
) -> griffe.DocstringParameter:
    meaning = meanings.get(parameter.name, "")
    if parameter.docstring:  # an option
        meaning = parameter.docstring.value
        if found := _DEFAULT.search(meaning):
            parameter.default = found[1] or repr(found[2])
    if isinstance(parameter.default, griffe.ExprName):  # a constant
        with suppress(KeyError, AttributeError):
            parameter.default = modules[parameter.default.canonical_path].value
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    return griffe.DocstringParameter(
        name=stars.get(parameter.kind or griffe.ParameterKind.keyword_only, "") + parameter.name,
        description=meaning,
        annotation=parameter.annotation,
        value="optional" if parameter.docstring and parameter.default == "..." else parameter.default,
    )
