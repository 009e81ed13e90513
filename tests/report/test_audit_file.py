"""The file that keeps an audit."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from captum_robust.auditing import Audit, AuditError
from tests.report import made_up


def whole() -> Audit:
    one = made_up.explanation(1, 0.5, math.nan, certified=(0.1, 0.0, math.nan), not_certified="")
    return made_up.audit(one, accuracy=0.5, caveats={"a": "b"})


def test_written_and_read_it_is_the_same() -> None:
    text = whole().to_json()
    again = Audit.from_json(text)
    assert again.to_json() == text
    assert repr(again) == repr(whole())
    assert "NaN" not in text  # which is no JSON
    assert math.isnan(again.explanations[0].worst.precision[2])


def test_a_folder_holds_the_numbers_and_the_page(tmp_path: Path) -> None:
    whole().save(tmp_path / "new" / "folder")
    files = {p.name for p in (tmp_path / "new" / "folder").iterdir()}
    assert files == {"audit.json", "audit.html"}
    assert Audit.load(tmp_path / "new" / "folder").to_json() == whole().to_json()


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "3", '{"format": "captum_robust audit 1"}', '{"format": "another"}',
        '{"format": "captum_robust audit 2"}',
        "\x00",
    ],
)  # fmt: skip
def test_what_is_no_audit_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        Audit.from_json(text)
    (tmp_path / "audit.json").write_text(text, encoding="utf-8")
    with pytest.raises(AuditError, match=r"audit\.json is damaged"):
        Audit.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("explanations", [{}]), ("explanations", {}), ("radii", "x"), ("k", None), ("k", "two"),
        ("versions", [1]), ("command", ...), ("surprise", 1),
    ],
)  # fmt: skip
def test_a_part_of_another_form_is_refused(name: str, value: Any) -> None:
    found = json.loads(whole().to_json())
    if value is ...:
        del found[name]
    else:
        found[name] = value
    with pytest.raises(AuditError):
        Audit.from_json(json.dumps(found))


def test_an_audit_of_the_first_format_is_read() -> None:
    found = json.loads(whole().to_json())
    found["format"] = "captum_robust audit 1"
    found["doubts"] = found.pop("caveats")
    for explanation in found["explanations"]:
        explanation["thickness"] = explanation.pop("measures")["thickness"]
        for trial in explanation["trials"]:
            values = trial.pop("values")
            trial["precision"] = values["precision"]
            trial["changed"] = values["prediction changed"]
    assert Audit.from_json(json.dumps(found)).to_json() == whole().to_json()


@pytest.mark.parametrize("metric", ["precision", "prediction changed"])
def test_a_trial_without_its_metrics_is_refused(metric: str) -> None:
    found = json.loads(whole().to_json())
    del found["explanations"][0]["trials"][0]["values"][metric]
    with pytest.raises(AuditError, match=metric):
        Audit.from_json(json.dumps(found))


def test_a_folder_without_an_audit_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot be read"):
        Audit.load(tmp_path)
