"""What must hold of the Bicep files: each rule returns its faults, so that a test can show it good and bad text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.bicep import Node, Parameter, ParameterFile, Template, at, properties, string, text, walk

FUNCTIONS = {
    "array", "bool", "concat", "contains", "empty", "environment", "first", "format", "guid", "int", "items", "join",
    "json", "last", "length", "loadJsonContent", "loadTextContent", "max", "min", "readEnvironmentVariable", "replace", "resourceGroup", "resourceId", "split",
    "string", "subscription", "subscriptionResourceId", "take", "tenant", "toLower", "toUpper", "union", "uniqueString",
}  # fmt: skip
"""Functions of Bicep that checkov's parser knows too, and that read no secret."""

PREVIEW = {"Microsoft.Insights/diagnosticSettings": "no other version knows category groups"}
"""Types that are used in a preview version, and why."""

HAVE_DIAGNOSTICS = {
    "Microsoft.Databricks/workspaces",
    "Microsoft.KeyVault/vaults",
    "Microsoft.Network/networkSecurityGroups",
    "Microsoft.Network/publicIPAddresses",
    "Microsoft.Network/virtualNetworks",
    "Microsoft.OperationalInsights/workspaces",
    "Microsoft.ServiceBus/namespaces",
    "Microsoft.Storage/storageAccounts",
    "Microsoft.Storage/storageAccounts/blobServices",
    "Microsoft.Storage/storageAccounts/tableServices",
    "Microsoft.Web/sites",
}
"""Application Insights is not among them: its tables lie in the workspace already. Plans, gateways and rules send none."""

_SECRETS = re.compile(
    r"(?i)\blist\w*\(|getSecret|AccountKey|SharedAccessKey|DefaultEndpointsProtocol|SharedAccessSignature"
)
_TELLING = re.compile(r"(?i)secret(?!.*(scope|url))|password|connection_?string|_key$|token|instrumentation")


def references(root: Node) -> Iterator[tuple[Node, str]]:
    """Every name that an expression refers to, without property names and called functions."""
    for node in walk(root):
        if node.type != "identifier":
            continue
        parent = node.parent
        if parent is not None:
            first = parent.named_children[0] == node
            if parent.type == "object_property" and first:
                continue
            if parent.type == "call_expression" and first:
                continue
            if parent.type == "for_statement" and first:
                continue
        yield node, text(node)


def loop_variables(root: Node) -> set[str]:
    found: set[str] = set()
    for node in walk(root):
        if node.type == "for_statement" and node.named_children[0].type == "identifier":
            found.add(text(node.named_children[0]))
        elif node.type in ("loop_variable", "loop_enumerator"):
            found.add(text(node))
    return found


def values(template: Template) -> Iterator[Node]:
    """Every declaration's value."""
    yield from (one.default for one in template.parameters.values() if one.default is not None)
    yield from template.variables.values()
    yield from template.outputs.values()
    for node in template.tree.named_children:
        if node.type in ("resource_declaration", "module_declaration"):
            yield node.named_children[-1]


def name_faults(template: Template) -> list[str]:
    """Names that are used and not declared, and names that are declared and not used."""
    used: set[str] = set()
    faults: list[str] = []
    for value in values(template):
        known = template.symbols | loop_variables(value)
        for node, name in references(value):
            used.add(name)
            if name not in known:
                faults.append(f"{template.path.name}:{node.start_point[0] + 1}: {name} is not declared")
        for node in walk(value):
            if node.type == "call_expression" and node.named_children[0].type == "identifier":
                called = text(node.named_children[0])
                if called not in FUNCTIONS:
                    faults.append(f"{template.path.name}:{node.start_point[0] + 1}: {called}() is not known")
    must_be_used = {*template.parameters, *template.variables}
    must_be_used |= {name for name, one in template.resources.items() if one.existing}
    return faults + [f"{template.path.name}: {name} is never used" for name in sorted(must_be_used - used)]


def description_faults(template: Template) -> list[str]:
    return [
        f"{template.path.name}: parameter {one.name} is not described"
        for one in template.parameters.values()
        if len(one.decorators.get("description", "")) < 10
    ]


def module_faults(template: Template, modules: Mapping[str, Template]) -> list[str]:
    """Inputs that a module does not have or lacks, outputs that it does not have, files that are not there."""
    faults: list[str] = []
    for module in template.modules.values():
        wanted = modules.get(module.path)
        if wanted is None:
            faults.append(f"{module.symbol}: there is no {module.path}")
            continue
        required = {one.name for one in wanted.parameters.values() if one.default is None}
        faults += [f"{module.symbol}: {name} is not given" for name in sorted(required - set(module.inputs))]
        faults += [
            f"{module.symbol}: {module.path} has no parameter {name}"
            for name in sorted(set(module.inputs) - set(wanted.parameters))
        ]
        faults += [
            f"{module.symbol}: {name} is a {kind}, {module.path} wants {wanted.parameters[name].type}"
            for name, value in module.inputs.items()
            if name in wanted.parameters and (kind := mismatch(value, wanted.parameters[name])) is not None
        ]
        for used in re.findall(rf"\b{module.symbol}!?\.outputs\.(\w+)", text(template.tree)):
            if used not in wanted.outputs:
                faults.append(f"{module.symbol}: {module.path} has no output {used}")
    return faults


_KINDS = {"string": "string", "number": "int", "boolean": "bool", "object": "object", "array": "array"}


def mismatch(value: Node, wanted: Parameter) -> str | None:
    """The kind of a literal that is not what the parameter takes; None when it fits, or when it is no literal."""
    kind = _KINDS.get(value.type)
    allowed = _allowed(wanted)
    if kind is not None and kind != wanted.type:
        return kind
    if kind in ("string", "int") and allowed and text(value).strip("'") not in allowed:
        return f"{text(value)}, which is not allowed"
    return None


def _allowed(wanted: Parameter) -> set[str]:
    return {a or b for a, b in re.findall(r"'([^']*)'|(\b\d+\b)", wanted.decorators.get("allowed", ""))}


def version_faults(templates: list[Template]) -> list[str]:
    """Types without a pinned version, preview versions without a reason, one type in two versions."""
    faults: list[str] = []
    seen: dict[str, str] = {}
    for template in templates:
        for one in template.resources.values():
            where = f"{template.path.name}: {one.symbol}"
            if not re.fullmatch(r"20\d\d-\d\d-\d\d(-preview)?", one.version):
                faults.append(f"{where} has no pinned version")
            elif one.version.endswith("-preview") and one.type not in PREVIEW:
                faults.append(f"{where} is of a preview version")
            elif seen.setdefault(one.type, one.version) != one.version:
                faults.append(f"{where} is of {one.version}, elsewhere {seen[one.type]}")
    return faults


def secret_faults(template: Template) -> list[str]:
    """Functions that read keys, connection strings with keys in them, outputs that tell a secret."""
    faults = [
        f"{template.path.name}:{node.start_point[0] + 1}: {text(node)[:60]}"
        for node in walk(template.tree)
        if node.type in ("call_expression", "string") and _SECRETS.search(text(node))
    ]
    for name, value in template.outputs.items():
        if _TELLING.search(name) or _TELLING.search(text(value)):
            faults.append(f"{template.path.name}: output {name}")
    return faults


def role_faults(template: Template) -> list[str]:
    """Role assignments without a reason, a scope, a kind of principal, or a role that has a name."""
    faults: list[str] = []
    for one in template.resources.values():
        if one.type != "Microsoft.Authorization/roleAssignments":
            continue
        reason = at(one.body, "properties.description")
        role = at(one.body, "properties.roleDefinitionId")
        if reason is None or len(string(reason)) < 40:
            faults.append(f"{one.symbol}: description does not say why")
        if at(one.body, "scope") is None:
            faults.append(f"{one.symbol}: is for the whole resource group")
        if at(one.body, "properties.principalType") is None:
            faults.append(f"{one.symbol}: principalType is missing")
        if role is None or not any(name in template.variables for _, name in references(role)):
            faults.append(f"{one.symbol}: the role has no name")
    return faults


def diagnostic_faults(template: Template) -> list[str]:
    """Resources that could tell what happens to them, and do not."""
    told = {
        text(scope)
        for one in template.resources.values()
        if one.type == "Microsoft.Insights/diagnosticSettings" and (scope := at(one.body, "scope")) is not None
    }
    return [
        f"{template.path.name}: {one.symbol} has no diagnostic settings"
        for one in template.resources.values()
        if one.type in HAVE_DIAGNOSTICS and not one.existing and one.symbol not in told
    ]


def parameter_faults(file: ParameterFile, template: Template) -> list[str]:
    """Required parameters without a value, values without a parameter, literals of another kind."""
    required = {one.name for one in template.parameters.values() if one.default is None}
    faults = [f"{file.path.name}: {name} has no value" for name in sorted(required - set(file.values))]
    for name, value in file.values.items():
        wanted = template.parameters.get(name)
        if wanted is None:
            faults.append(f"{file.path.name}: there is no parameter {name}")
        elif (kind := mismatch(value, wanted)) is not None:
            faults.append(f"{file.path.name}: {name} is a {kind}, not {wanted.type}")
        elif value.type == "call_expression" and not _gives(text(value.named_children[0]), wanted.type):
            faults.append(f"{file.path.name}: {name} is not turned into {wanted.type}")
        elif value.type == "member_expression" and text(value) != f"own.{name}":
            faults.append(f"{file.path.name}: {name} is given {text(value)}")
        faults += [
            f"{file.path.name}: {used} is not declared" for _, used in references(value) if used not in file.variables
        ]
    if not (file.path.parent / file.using).is_file():
        faults.append(f"{file.path.name}: there is no {file.using}")
    return faults


def _gives(function: str, wanted: str) -> bool:
    kinds = {"readEnvironmentVariable": ("string",), "int": ("int",), "bool": ("bool",), "json": ("array", "object")}
    return wanted in kinds.get(function, ())


def size_faults(sizes: Mapping[str, object], template: Template) -> list[str]:
    """A stage's sizes that are no parameters, or of another kind than these."""
    kinds = {"string": str, "int": int, "bool": bool, "array": list, "object": dict}
    faults: list[str] = []
    for name, value in sizes.items():
        wanted = template.parameters.get(name)
        if wanted is None:
            faults.append(f"there is no parameter {name}")
        elif type(value) is not kinds[wanted.type]:
            faults.append(f"{name} is not of type {wanted.type}")
        elif (allowed := _allowed(wanted)) and str(value) not in allowed:
            faults.append(f"{name} may not be {value}")
    return faults


def app_settings(main: Template, function_app: Template) -> dict[str, Node]:
    """The app's settings: the product's own, which main gives, and the identity's, which the module adds."""
    given = main.modules["functionApp"].inputs["settings"]
    added = at(function_app.resources["appSettings"].body, "properties")
    assert given.type == "call_expression"
    assert added is not None
    assert added.type == "call_expression"
    last = [union.named_children[-1].named_children[-1] for union in (given, added)]
    return {name: value for one in last for name, value in properties(one).items()}


def templates_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.bicep"))
