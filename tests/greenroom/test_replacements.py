"""The list of replaced names: applied once, whole or not at all, and undone."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from greenroom import replacements
from greenroom.replacements.model import Feature, names
from greenroom.replacements.registry import Declined, Put, Registry, Undeclared, part_of
from greenroom.replacements.versions import Range
from greenroom.settings import Settings

PACKAGE = Path(replacements.__file__).parents[1]
CODE = """
LIMIT = 1
def greet(name, loudly=False): return "hello " + name
class Base:
    def stop(self): return "stopped"
class Shop(Base):
    def sell(self, what): return "sold"
"""


def feature(key: str, package: str = "tills", **options: Any) -> Feature:
    found = names("tills", "greet", "A reason.", "test", parameters="name loudly")
    found += names("tills", "LIMIT", "A reason.", "test")
    found += names("tills.Shop", "sell stop", "A reason.", "test")
    found += names("tills.Shop", "close", "A reason.", "test", of_instances=True, is_added=True)
    own = {
        "key": key,
        "title": f"better {key}",
        "package": package,
        "tested": (Range(package, "1.2", "2.0"),),
        "without": f"its own {key} is used",
        "names": found,
    }
    return Feature(**{**own, **options})


@pytest.fixture
def tills() -> Iterator[Any]:
    module: Any = ModuleType("tills")
    exec(CODE, vars(module))
    for kind in (module.Base, module.Shop):
        kind.__module__ = "tills"
    sys.modules["tills"] = module
    yield module
    del sys.modules["tills"]


def registry(version: str | None = "1.2.3", *features: Feature) -> Registry:
    return Registry(features or (feature("greeting"),), {"tills": version, "lamps": "7.1"}.get)


def state(owner: Registry, settings: Settings | None = None) -> list[tuple[str, str]]:
    return [(each.state, each.reason) for each in owner.states(settings)]


def test_a_part_is_applied_once_and_can_be_undone(tills: Any) -> None:
    owner = registry()
    plain, shop = tills.greet, tills.Shop()
    before = dict(vars(tills.Shop))

    @part_of(owner, "greeting")
    def install(put: Put, word: str) -> None:
        put(tills, "greet", lambda name, loudly=False: word)
        put(tills.Shop, "stop", lambda self: word)  # which it has from its base
        put(shop, "close", word)

    assert install("good day")
    assert install("again")
    assert (tills.greet("Ann"), tills.Shop().stop(), tills.Base().stop(), shop.close) == (
        "good day", "good day", "stopped", "good day",
    )  # fmt: skip
    owner.undo()

    assert tills.greet is plain
    assert dict(vars(tills.Shop)) == before
    assert not hasattr(shop, "close")
    assert install("once more")
    assert tills.greet("Ann") == "once more"


def test_undoing_leaves_what_somebody_has_put_over_ours(tills: Any) -> None:
    owner = registry()
    part_of(owner, "greeting")(lambda put: put(tills, "greet", lambda name, loudly=False: "ours"))()
    theirs = tills.greet = lambda name: "theirs"

    owner.undo()

    assert tills.greet is theirs


def test_what_was_set_back_by_another_patching_is_replaced_anew(tills: Any) -> None:
    owner = registry()
    plain = tills.greet
    part_of(owner, "greeting")(lambda put: put(tills, "greet", lambda name, loudly=False: "ours"))()
    tills.greet = plain

    owner.put_again()

    assert tills.greet("Ann") == "ours"


@pytest.mark.parametrize("version", ["1.1.9", "2.1", "2.1rc1", "3", "unknown"])
def test_a_version_that_nobody_has_tested_keeps_its_own(
    version: str, tills: Any, caplog: pytest.LogCaptureFixture
) -> None:
    owner = registry(version, feature("greeting"), feature("selling"))
    install = part_of(owner, "greeting")(lambda put: put(tills, "greet", None))
    selling = part_of(owner, "selling")(lambda put: put(tills.Shop, "sell", None))

    assert not install()
    assert not install()
    assert not selling()

    assert tills.greet("Ann") == "hello Ann"
    line = f"tills {version}: unknown to us (tested: 1.2 to 2.0), its own greeting is used; its own selling is used"
    assert [record.getMessage() for record in caplog.records] == [line]
    assert state(owner)[0] == ("off", f"tills {version}: unknown to us (tested: 1.2 to 2.0), its own greeting is used")


@pytest.mark.parametrize("version", ["1.2", "1.2.0", "1.10.4", "2.0.99", "2.0rc1"])
def test_all_versions_between_the_first_and_the_last_are_known(version: str) -> None:
    assert state(registry(version)) == [("on", "")]


def test_what_is_not_installed_is_absent() -> None:
    assert state(registry(None)) == [("absent", "tills is not installed")]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("del module.Shop.sell", "tills.Shop.sell is not there any more"),
        ("module.Shop.sell = None", ""),  # put all the same: no parameters are expected of it
        ("module.greet = lambda name, volume: 0", "tills.greet takes other arguments than we know (name, volume)"),
        ("del module.Shop", "replacing its names failed (AttributeError: module 'tills' has no attribute 'Shop')"),
    ],
)
def test_a_package_of_another_shape_keeps_all_its_own(
    broken: str, said: str, tills: Any, caplog: pytest.LogCaptureFixture
) -> None:
    exec(broken, {"module": tills})
    owner = registry()

    @part_of(owner, "greeting")
    def install(put: Put) -> None:
        put(tills, "LIMIT", 2)
        put(tills.Shop, "sell", None)
        put(tills, "greet", None)

    assert install() is not bool(said)

    assert tills.LIMIT == (1 if said else 2)
    assert [record.getMessage() for record in caplog.records] == (
        [f"tills 1.2.3: {said}, its own greeting is used"] if said else []
    )


def test_somebody_elses_wrapper_is_no_other_shape(tills: Any) -> None:
    tills.greet = lambda *args, **kwargs: "wrapped"

    assert part_of(registry(), "greeting")(lambda put: put(tills, "greet", None))()


def test_what_needs_a_feature_that_is_off_is_off_and_put_back(tills: Any, caplog: pytest.LogCaptureFixture) -> None:
    owner = registry("1.2", feature("greeting"), feature("selling", needs=("greeting",)))
    plain = tills.Shop.sell
    assert part_of(owner, "selling")(lambda put: put(tills.Shop, "sell", None))()

    assert not part_of(owner, "greeting")(fail)()

    assert tills.Shop.sell is plain
    assert [each[0] for each in state(owner)] == ["off", "off"]
    assert len(caplog.records) == 1


def fail(put: Put) -> None:
    raise RuntimeError("broken")


def test_a_feature_of_one_package_can_depend_on_the_version_of_another() -> None:
    lamp = feature("light", tested=(Range("tills", "1.2", "2.0"), Range("lamps", "7.2", "7.3")))

    owner = registry("1.2", lamp)

    assert state(owner) == [("off", "lamps 7.1: unknown to us (tested: 7.2 to 7.3), its own light is used")]


def test_a_range_may_have_a_release_in_it_that_fails() -> None:
    tested = Range("lamps", "7.0", "8.1", but=("7.2.0", "7.3.0"))

    assert [each for each in ("6.9", "7.0.3", "7.2.0", "7.2.1", "7.3.0", "8.1.5", "8.2") if tested.knows(each)] == [
        "7.0.3", "7.2.1", "8.1.5"
    ]  # fmt: skip
    assert str(tested) == "7.0 to 8.1 but 7.2.0 and 7.3.0"


def test_a_part_may_decline(caplog: pytest.LogCaptureFixture) -> None:
    owner = registry()

    @part_of(owner, "greeting")
    def install(put: Put) -> None:
        raise Declined("this system has no mouths")

    assert not install()
    assert not install()
    assert state(owner) == [("off", "this system has no mouths, its own greeting is used")]
    assert len(caplog.records) == 1


def test_a_name_that_is_not_on_the_list_is_a_mistake(tills: Any) -> None:
    owner = registry()

    @part_of(owner, "greeting")
    def install(put: Put) -> None:
        put(tills, "LIMIT", 2)
        put(tills.Base, "stop", None)

    with pytest.raises(Undeclared, match=r"tills\.Base\.stop is not on the list of greeting"):
        install()
    assert tills.LIMIT == 1


def test_settings_turn_features_off() -> None:
    owner = registry("1.2", feature("greeting", setting="patch_requests"), feature("selling", is_for_worker=True))

    assert [each[0] for each in state(owner, Settings())] == ["on", "on"]
    assert state(owner, Settings(patch_requests=False))[0] == ("off", "GREENROOM_PATCH_REQUESTS is off")
    assert state(owner, Settings(worker_class="gevent"))[1] == ("off", "GREENROOM_WORKER_CLASS is gevent")
    assert state(owner, Settings(patch=False))[0] == ("off", "GREENROOM_PATCH is off")


def test_what_was_announced_is_not_said_again(tills: Any, caplog: pytest.LogCaptureFixture) -> None:
    owner = registry("3.0", feature("greeting"), feature("selling"))
    said: list[str] = []

    owner.announce(said.append)
    owner.announce(said.append)
    part_of(owner, "greeting")(lambda put: put(tills, "greet", None))()

    assert said == ["tills 3.0: unknown to us (tested: 1.2 to 2.0), its own greeting is used; its own selling is used"]
    assert not caplog.records


def test_every_state_has_its_package_and_version() -> None:
    found = replacements.states()

    assert len(found) == len(replacements.FEATURES)
    assert {each.state for each in found} <= {"on", "off", "absent"}
    assert all(bool(each.version) is (each.state != "absent") for each in found)
    assert all(each.reason for each in found if each.state != "on")


def test_every_entry_gives_its_reason_and_its_module() -> None:
    for each in replacements.FEATURES:
        assert each.is_open or each.names
        for name in each.names:
            assert name.why.endswith("."), name
            assert (PACKAGE / f"{name.by}.py").exists() or (PACKAGE / name.by / "__init__.py").exists(), name.by


def test_nothing_is_logged_below_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    replacements.states()

    assert not caplog.records
