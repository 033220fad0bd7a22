"""Validation of a policy file's content against the JSON Schema in the package."""

import json
import warnings
from pathlib import Path

import jsonschema
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import openclaw_egress

SHIPPED = Path(openclaw_egress.__file__).parent / "policy/policy.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text()))


def schema_errors(data: bytes) -> list[str]:
    """Return the errors that an editor shows for a policy. Parse it as YAML 1.2, and validate it against the schema."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = YAML(typ="safe", pure=True).load(data.decode("utf-8-sig"))
    except YAMLError as error:
        return [str(error)]
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(json.loads(json.dumps(document)))]
