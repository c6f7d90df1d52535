import functools
import re
import sys
from pathlib import Path

import pytest

from greenroom import finding, importing
from greenroom.errors import AppNotFound


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys, "path", [])
    return sys.path


def test_pythonpath_comes_before_the_working_directory(path: list[str], tmp_path: Path) -> None:
    here, shop, other = (str(tmp_path / name) for name in ("here", "shop", "other"))
    path[:] = [here, "/venv/bin", shop, other, "/usr/lib/python3"]

    importing.prefer_pythonpath({"PYTHONPATH": f"{shop}:{other}"}, Path(here))

    assert path == ["/venv/bin", shop, other, here, "/usr/lib/python3"]


def test_a_folder_that_only_the_env_file_names_is_added(path: list[str], tmp_path: Path) -> None:
    path[:] = [str(tmp_path), "/usr/lib/python3"]

    importing.prefer_pythonpath({"PYTHONPATH": "/srv/shop"}, tmp_path)

    assert path == ["/srv/shop", str(tmp_path), "/usr/lib/python3"]


def test_without_pythonpath_nothing_moves(path: list[str], tmp_path: Path) -> None:
    path[:] = [str(tmp_path), "/usr/lib/python3"]

    importing.prefer_pythonpath({}, tmp_path)

    assert path == [str(tmp_path), "/usr/lib/python3"]


def test_a_working_directory_named_in_pythonpath_stays_where_it_is(path: list[str], tmp_path: Path) -> None:
    path[:] = [str(tmp_path), "/srv/shop", "/usr/lib/python3"]

    importing.prefer_pythonpath({"PYTHONPATH": f"{tmp_path}:/srv/shop"}, tmp_path)

    assert path == [str(tmp_path), "/srv/shop", "/usr/lib/python3"]


def test_a_reload_moves_nothing_a_second_time(path: list[str], tmp_path: Path) -> None:
    shop = str(tmp_path / "shop")
    path[:] = [str(tmp_path), shop, "/usr/lib/python3"]
    importing.prefer_pythonpath({"PYTHONPATH": shop}, tmp_path)
    once = list(path)

    importing.prefer_pythonpath({"PYTHONPATH": shop}, tmp_path)

    assert path == once == [shop, str(tmp_path), "/usr/lib/python3"]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "corner_shop.py").write_text(
        "app = lambda environ, start: []\ndef factory(): return app\nname = 'x'\ndef broken(): import not_there\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "corner_shop", raising=False)
    return "corner_shop"


@pytest.mark.parametrize("expression", ["app", "factory()"])
def test_a_name_and_a_factory_are_found(shop: str, expression: str) -> None:
    assert callable(importing.load(f"{shop}:{expression}"))


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("missing", "corner_shop has no missing"),
        ("name", "it can't be called"),
        ("factory(1)", "neither a name nor a call without arguments"),
        ("a b", "neither a name nor a call without arguments"),
    ],
)
def test_what_can_not_be_served_is_explained(shop: str, expression: str, complaint: str) -> None:
    with pytest.raises(AppNotFound, match=complaint.replace("(", r"\(")):
        importing.load(f"{shop}:{expression}")


def test_a_missing_module_is_named() -> None:
    with pytest.raises(AppNotFound, match="there is no module no_such_shop; is PYTHONPATH right"):
        importing.load("no_such_shop:app")


def test_a_module_missing_inside_the_application_is_its_own_error(shop: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        importing.load(f"{shop}:broken()")


def test_the_folder_of_a_package_is_found_without_importing_it(shop: str, tmp_path: Path) -> None:
    assert importing.package_folder(f"{shop}:app") == tmp_path.resolve()
    assert shop not in sys.modules


@pytest.mark.parametrize(("named", "said"), [("shop:app", "shop:app"), ("shop", "shop"), ("", "found as flask run")])
def test_an_application_that_is_looked_for_is_shown_as_it_was_named(named: str, said: str) -> None:
    assert finding.shown(finding.uri(named)).startswith(said)


def makes_one(config=None, debug=False):  # type: ignore[no-untyped-def]
    """A factory."""


def is_one(environ, start_response=None):  # type: ignore[no-untyped-def]
    """An application."""


@functools.wraps(makes_one)
def wraps_one(*args):  # type: ignore[no-untyped-def]
    """A decorator's."""


@pytest.mark.parametrize("found", [makes_one, lambda: None, lambda config: None], ids=["defaults", "none", "one"])
def test_a_factory_that_is_named_without_parentheses_is_refused(found: object) -> None:
    with pytest.raises(AppNotFound, match=re.escape("say so: shop:create_app()")):
        finding.refuse_factory(found, "shop:create_app")


@pytest.mark.parametrize(
    "found", [is_one, wraps_one, lambda e, s: None, lambda *a, **k: None, len, makes_one.__get__(1)]
)
def test_what_may_be_an_application_is_not_taken_for_a_factory(found: object) -> None:
    finding.refuse_factory(found, "shop:app")


def test_a_module_in_src_is_seen_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert finding.elsewhere("shop.web").startswith("Install it in this environment")

    (tmp_path / "src" / "shop").mkdir(parents=True)

    assert "--pythonpath src" in finding.elsewhere("shop.web")


def test_what_an_application_lacks_is_an_error_of_its_own_where_flask_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "lacks_one.py").write_text("import no_such_package_at_all\n")

    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all") as caught:
        finding.application("lacks_one")

    assert [Path(frame.path).name for frame in caught.traceback][-1] == "lacks_one.py"
    with pytest.raises(AppNotFound, match="Could not import 'not_there'. Install it in this environment"):
        finding.application("not_there")


def test_a_factory_that_flask_app_names_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "made.py").write_text("from flask import Flask\ndef create_app():\n    return Flask('made')\n")

    application = finding.application("made:create_app")

    assert getattr(application, "name", None) == "made"
