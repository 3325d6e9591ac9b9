"""Every example of docs/mapping.md does what the page says."""

import json
import re
import tomllib
from dataclasses import asdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consumer.core.event import InAppEvent
from consumer.core.mapping import PARTS, CompiledMapping, Filtered, MappingSpec, compile_mapping
from consumer.core.mapping_values import CONVERSIONS
from consumer.core.outcome import Rejected
from consumer.ports import Decoded
from tests.support.avro import encode, plain_decoder, record_of

PAGE = (Path(__file__).parents[2] / "docs" / "mapping.md").read_text()
BLOCKS = re.findall(r"```(\w+)(?: (\w+))?\n(.*?)```", PAGE, re.DOTALL)
SCHEMA, RECORD = (json.loads(text) for _, title, text in BLOCKS if title)
EXAMPLES = [(toml, json.loads(wanted)) for (kind, _, toml), (_, _, wanted) in pairwise(BLOCKS) if kind == "toml"]


def datum() -> Any:
    given = json.loads(json.dumps(RECORD))
    given["id"] = bytes.fromhex(given["id"])
    given["body"]["total"] = Decimal(given["body"]["total"])
    decoder = plain_decoder(SCHEMA)
    decoded = decoder.decode(record_of(encode(SCHEMA, given)))
    assert isinstance(decoded, Decoded)
    return decoded.datum


def mapped(toml: str) -> InAppEvent | Filtered | Rejected:
    data = tomllib.loads(toml if "[[type]]" in toml else f"[[type]]\n{toml}")
    data["type"][0] = {"records": "com.acme.UserAction", "app": "app", "name": "action", **data["type"][0]}
    compiled = compile_mapping(MappingSpec.parse(data), SCHEMA)
    assert isinstance(compiled, CompiledMapping)
    return compiled.map(datum())


@pytest.mark.parametrize(("toml", "wanted"), EXAMPLES)
def test_example(toml: str, wanted: dict[str, Any]) -> None:
    result = mapped(toml)
    if isinstance(result, InAppEvent):
        event = asdict(result)
        assert {key: event[key] for key in wanted} == wanted
    else:
        assert wanted == {type(result).__name__.lower(): result.reason}


def test_the_page_has_examples_and_every_one_has_a_result() -> None:
    assert len(EXAMPLES) == PAGE.count("```toml") >= 15
    assert all(wanted for _, wanted in EXAMPLES)


@pytest.mark.parametrize("word", [*PARTS, *CONVERSIONS])
def test_the_page_names_every_part_and_conversion(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_a_lookup_that_finds_everything() -> None:
    toml = next(toml for toml, _ in EXAMPLES if "lookup.platforms" in toml)
    event = mapped(toml.replace("DROID", "IPHONE").replace('"android"', '"ios"'))
    assert isinstance(event, InAppEvent)
    assert (event.name, event.platform, event.att_status) == ("Purchase", "ios", "authorized")
    assert event.ad_user_data is True
