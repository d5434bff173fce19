"""From a file, a directory or a reference to a module with example inputs.

`load` answers with a `LoadedModel`; `infer_inputs` makes up example inputs where none are
given; `parse_spec` and `make_inputs` serve `--input`. A new format is one new file in
`formats/`, found by itself.
"""

from __future__ import annotations

from dynstab.loading.infer_inputs import infer_inputs
from dynstab.loading.inputs import InputSpec, make_inputs, parse_spec
from dynstab.loading.load import load
from dynstab.loading.loaded import Inputs, LoadedModel, as_inputs

__all__ = ["InputSpec", "Inputs", "LoadedModel", "as_inputs", "infer_inputs", "load", "make_inputs", "parse_spec"]
