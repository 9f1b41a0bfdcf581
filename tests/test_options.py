"""Options become what a `Job` takes, and what cannot be used is told with the option's name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from frameenrich.errors import InputError, OutputError, ParameterError, TemplateError
from frameenrich.options import (
    Asking,
    Sending,
    read_params,
    read_response_model,
    read_template,
    split_commas,
)


def test_only_what_was_given_is_passed_on() -> None:
    """Defaults stay where they are: with `submit`."""
    wishes = Asking(model="m", template="{{ a }}").wishes()

    assert wishes == {
        "template": "{{ a }}",
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "params": {},
    }
    assert Sending().wishes() == {"provider": "openai", "fresh": False}


def test_everything_given_arrives(tmp_path: Path) -> None:
    """Each option is the keyword argument that it is called after."""
    (tmp_path / "system.txt").write_text("Be brief.")
    asking = Asking(
        model="m",
        template_file=Path("ask.j2"),
        system=f"@{tmp_path / 'system.txt'}",
        param=["temperature=0"],
        key="sku,lang",
        labels='a,"b, c"',
        name="kind",
        prefix="p_",
        on_null="skip",
        image="front,back",
        image_root=tmp_path,
    )

    assert asking.wishes() == {
        "template": Path("ask.j2"),
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "params": {"temperature": 0},
        "system": "Be brief.",
        "image": ["front", "back"],
        "image_root": tmp_path,
        "key": ["sku", "lang"],
        "on_null": "skip",
        "labels": ["a", "b, c"],
        "name": "kind",
        "prefix": "p_",
    }


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("x=1", 1),
        ("x=0.5", 0.5),
        ("x=true", True),
        ('x={"a": [1]}', {"a": [1]}),
        ("x=low", "low"),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ('x="1"', "1"),
    ],
)
def test_parameters_are_json_else_text(pair: str, value: Any) -> None:
    """A number is a number, a word needs no quotes."""
    assert read_params([pair]) == {"x": value}


@pytest.mark.parametrize("pair", ["temperature", "=1", ""])
def test_a_parameter_that_is_no_pair_is_refused(pair: str) -> None:
    """With the form that it should have."""
    with pytest.raises(ParameterError, match="Write --param NAME=VALUE"):
        read_params([pair])


def test_templates_come_as_text_or_from_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    """``@`` reads a file; a file's bare name as a template is nobody's wish."""
    monkeypatch.chdir(tmp_path)
    Path("ask.j2").write_text("{{ a }}")

    assert read_template("{{ a }}", None) == "{{ a }}"
    assert read_template("@ask.j2", None) == Path("ask.j2")
    assert read_template(None, Path("ask.j2")) == Path("ask.j2")
    with pytest.raises(TemplateError, match=r"Write --template @ask\.j2 to read it"):
        read_template("ask.j2", None)
    with pytest.raises(TemplateError, match="No template was given"):
        read_template(None, None)
    with pytest.raises(TemplateError, match="Two templates were given"):
        read_template("{{ a }}", Path("ask.j2"))


def test_an_absent_system_file_is_told() -> None:
    """As an absent template is."""
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        Asking(model="m", template="x", system="@none.txt").wishes()


def test_a_schema_comes_from_a_file(tmp_path: Path) -> None:
    """JSON as it stands; what is no JSON is told with the file."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    (tmp_path / "good.json").write_text(json.dumps(schema))
    (tmp_path / "bad.json").write_text("{")

    assert read_response_model(tmp_path / "good.json", None) == schema
    with pytest.raises(OutputError, match=r"bad\.json is not JSON"):
        read_response_model(tmp_path / "bad.json", None)
    with pytest.raises(OutputError, match=r"none\.json cannot be read"):
        read_response_model(tmp_path / "none.json", None)
    with pytest.raises(OutputError, match="Give one of them"):
        read_response_model(tmp_path / "good.json", "a:B")


def test_a_class_is_imported_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``answers:Product`` is the class `Product` of ``answers.py`` here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_answers.py").write_text(
        "from pydantic import BaseModel\nclass Product(BaseModel):\n    color: str\n"
    )

    found = read_response_model(None, "my_answers:Product")

    assert issubclass(found, BaseModel)
    assert list(found.model_fields) == ["color"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("answers", "names no class"),
        (":A", "names no class"),
        ("no_such_module_here:A", "ModuleNotFoundError"),
        ("json:Absent", "AttributeError"),
    ],
)
def test_a_class_that_cannot_be_imported_is_told(name: str, says: str) -> None:
    """With Python's own reason."""
    with pytest.raises(OutputError, match=says):
        read_response_model(None, name)


def test_commas_split_but_for_quoted_ones() -> None:
    """Spaces after commas do not count."""
    assert split_commas("a, b,c ") == ["a", "b", "c"]
    assert split_commas('"a,b",c') == ["a,b", "c"]
