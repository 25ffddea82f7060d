"""Which variant serves, at a server or a gateway that can be told over HTTP, as services.yaml writes the requests.

A field of a control endpoint, an alias of a model, the route of a header rule at a gateway: where it stands in the
answer of the read request is a JSON pointer, in the write request `{variant}`. What the server calls a variant is its
`value`. Options: settings.variant.HttpVariantOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _http_choice as choice
from tuning.actuators import _options as options
from tuning.actuators import _variants as variants
from tuning.actuators._choice_endpoints import ChoiceEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.variant import HttpVariantOptions
from tuning.model import Setting


class HttpVariant(ChoiceEndpoints):
    """The variant lever over HTTP."""

    name, lever, knob = "http_variant", "variant", "variant"
    options = HttpVariantOptions

    def read(self, service: Service) -> Setting:
        return variants.known(self._given(service), super().read(service))

    def read_one(self, service: Service, http: Http) -> Knobs:
        given = self._given(service)
        read = given.read
        at = f"{read.method} {http.shown}{read.path}"
        document = http.call(read.method, read.path, read.body, reading=True, headers=read.headers)
        return {"variant": variants.name_of(given, choice.chosen(document, read.variant_at, at, "variant"))}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        given = self._given(service)
        value = variants.value_of(given, str(wanted["variant"]))
        choice.write(http, given.write, {"variant": value}, given.load_timeout_s)

    def _given(self, service: Service) -> HttpVariantOptions:
        return options.of(service, self.lever, HttpVariantOptions)
