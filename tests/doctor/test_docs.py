"""docs/doctor.md says what the rules say."""

from pathlib import Path

from greenroom.doctor.rules import RULES, markdown

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "doctor.md").read_text()


def test_every_rule_is_on_the_page_as_it_is() -> None:
    assert PAGE.endswith(f"## The rules\n\n{markdown()}\n")


def test_every_rule_has_a_reason_and_a_change() -> None:
    for name, rule in RULES.items():
        assert rule.reason.endswith((".", ":")), name
        assert rule.change.endswith((".", "`")), name
        assert rule.level in ("error", "warning", "note"), name
