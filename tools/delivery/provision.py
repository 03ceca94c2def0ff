"""tools/deploy --provision: make or change an environment's Azure resources with azd, and lose nothing that it has."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools.delivery.commands import Stopped, ask, require_programs, require_variables, run
from tools.delivery.target import MANAGEMENT, NEEDED, Target

TO_PROVISION = ("AZURE_SUBSCRIPTION_ID", "AZURE_LOCATION", "DATABRICKS_HOST")

TOLD = "UDS_AZD_ENVIRONMENT"
"""What a person told azd about the environment, as `azd env get-values` prints it: a runner has no folder `.azure`."""

SIGN_IN = "UDS_AUTH_CLIENT_ID"
STORAGE = "https://storage.azure.com"
DATABRICKS = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"
"""Azure Databricks in every tenant."""


def provision(environment: str, given: Mapping[str, str]) -> dict[str, str]:
    """Run azd. Returns the variables, those that the templates put out among them.

    Raises Stopped, before anything is changed, when a variable is missing or the app would lose its sign-in.
    """
    require_programs("azd")
    told = read_values(given.get(TOLD, ""))
    variables = told | {name: value for name, value in given.items() if value}
    require_variables(variables, TO_PROVISION)
    fetch_tokens(variables)
    name = variables.get("AZURE_ENV_NAME") or environment
    settings = settings_of(environment, variables)
    if settings.get("UDS_HTTP_AUTH") == "entra" and not variables.get(SIGN_IN):
        known = read_values(ask("azd", "env", "get-values", "--environment", name))
        if not known.get(SIGN_IN):
            raise Stopped(
                f"The app's callers sign in with Entra, and {SIGN_IN} is not set: function keys would be the only lock. "
                f"Put the lines of `azd env get-values` into {TOLD}.",
                2,
            )
    # The templates write every app setting. These two are a deployment's, and are handed on as they are.
    kept = {name: settings[name] for name in ("UDS_DATABRICKS_JOBS", "UDS_RELEASE") if settings.get(name)}
    told_all = {name: variables[name] for name in told} | kept
    run(
        *("azd", "provision", "--environment", name, "--no-prompt"),
        environment=told_all | {"AZURE_ENV_NAME": name, "UDS_STAGE": environment},
    )
    return read_values(ask("azd", "env", "get-values", "--environment", name)) | variables


def read_values(text: str) -> dict[str, str]:
    """Lines NAME="value" as azd writes them, with a backslash before what the shell would take for its own."""
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), value[1:-1])


def settings_of(environment: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The app settings of the app that runs; none before the first provisioning."""
    return Target.read(environment, variables).settings() if all(map(variables.get, NEEDED)) else {}


def fetch_tokens(variables: Mapping[str, str]) -> None:
    """Get every token that the deployment will need while the sign-in is fresh.

    Provisioning takes longer than GitHub's own token lives (minutes), with which no new one can be had; the Azure CLI
    keeps those that it has for an hour or more.
    """
    resources = [MANAGEMENT, STORAGE]
    if variables.get("DATABRICKS_AUTH_TYPE") == "azure-cli":
        resources.append(DATABRICKS)
    for resource in resources:
        ask("az", "account", "get-access-token", "--resource", resource, "--query", "expiresOn", "--output", "tsv")
