"""What a Hub has against a model card's YAML metadata; it knows fewer rules than the real one."""

import inspect
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

asks_the_endpoint = pytest.mark.skipif(
    "huggingface.co" in inspect.getsource(ModelCard.validate),
    reason="this client's ModelCard.validate() asks huggingface.co whatever its endpoint is",
)

_STRINGS = ("license", "library_name", "pipeline_tag", "base_model_relation", "base_model")
_LISTS = ("tags", "datasets", "language")


def metadata_errors(card: str) -> list[str]:
    """Each thing that is wrong with a card's metadata, in words."""
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", card, re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        return [f"not valid YAML: {error}"]
    if not isinstance(data, dict):
        return ["the metadata is no mapping"]
    errors = [f'"{key}" must be a string' for key in _STRINGS if not isinstance(data.get(key, ""), str)]
    errors += [f'"{key}" must be a list of strings' for key in _LISTS if not _is_text(data.get(key, ""))]
    for model in data.get("model-index", []):
        for result in model["results"] if model.get("name") else [{}]:
            if not {"task", "dataset", "metrics"} <= result.keys() or not {"type", "name"} <= result["dataset"].keys():
                errors.append('"model-index" needs a name, and in each result task.type, dataset.type and .name')
            errors += [f"a metric is {m!r}" for m in result.get("metrics", []) if not _is_number(m.get("value"))]
    return errors


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
