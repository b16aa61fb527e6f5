"""Settings are documented once, in the ``Args:`` of their class; editors get the same words through the JSON Schema."""

from __future__ import annotations

import inspect
import re
from typing import Any

ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def argument_docs(documented: type) -> dict[str, str]:
    """What the ``Args:`` section of a class says about each argument, on one line each."""
    _, _, arguments = inspect.cleandoc(documented.__doc__ or "").partition("\nArgs:\n")
    arguments = arguments.partition("\n\n")[0]
    return {name: " ".join(text.split()).replace("``", "`") for name, text in ENTRY.findall(arguments)}


def describe_properties(schema: dict[str, Any], model: type) -> None:
    """Move the ``Args:`` from the description of a model's JSON Schema to the properties they describe."""
    schema["description"] = inspect.cleandoc(model.__doc__ or "").splitlines()[0]
    docs = {key: text for cls in reversed(model.__mro__) for key, text in argument_docs(cls).items()}
    for name, property_ in schema.get("properties", {}).items():
        text = docs.get(name) or docs.get(f"{name}_")
        if text:
            property_["description"] = text
