"""The part of a problem's settings that names the method of its best response.

The flat fields (``cg_iterations``, ...) are the short spelling of a method's options. To add one, declare it here as
``<method>_<option>`` with the default that the method itself has; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PrivateAttr, SerializerFunctionWrapHandler, model_serializer

from ..hypergrad.method import Method
from ..hypergrad.registry import method_class
from .method_choice import MethodChoice, method_from, method_mapping
from .validation import Settings, refuse


class MethodSettings(Settings):
    """The method, and the flat fields that feed the method of their name."""

    type: MethodChoice = "darts"
    darts_alpha: float = 0.01
    neumann_iterations: int = 1
    neumann_alpha: float = 1.0
    cg_iterations: int = 1
    cg_alpha: float = 1.0
    reinforce_samples: int = 1
    reinforce_baseline: Literal["loo", "ema", "none"] = "loo"

    _method: Method = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Build the method, so that whatever it refuses is refused here."""
        name = self.type if isinstance(self.type, str) else None
        given = [field for field in FLAT_FIELDS if field in self.model_fields_set]
        for field in given:
            self._refuse_unread(field, name)
        if name is None:
            self._method = method_from(self.type)
        else:
            mine = {option: getattr(self, field) for field, (owner, option) in FLAT_FIELDS.items() if owner == name}
            self._method = method_from({"name": name, **mine}, given[0] if len(given) == 1 else "type")

    @property
    def method(self) -> Method:
        """The method that these settings describe."""
        return self._method

    @model_serializer(mode="wrap")
    def _write(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Written with all its options, in the one spelling that no flat field contradicts when it is read again.
        plain = {key: value for key, value in default(self).items() if key not in FLAT_FIELDS}
        return {**plain, "type": method_mapping(self._method)}

    def _refuse_unread(self, field: str, name: str | None) -> None:
        owner, option = FLAT_FIELDS[field]
        if name is None:
            kind = "an object" if isinstance(self.type, Method) else "a mapping"
            raise refuse(f"not read where `type` is {kind}; give its option `{option}` there", field)
        if owner != name:
            method_class(name)  # where the name itself is unknown, that is the better complaint
            raise refuse(f"not read by type '{name}', it is an option of '{owner}'; leave it out", field)


FLAT_FIELDS: dict[str, tuple[str, str]] = {
    field: (field.partition("_")[0], field.partition("_")[2])
    for field in MethodSettings.model_fields
    if field != "type"
}
"""The method and the option that each flat field feeds."""
