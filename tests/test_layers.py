"""The shape of the package: imports go downward, the core is pure, functions are small, all is tested."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "natfix"
MAX_FUNCTION = 60       # lines
MAX_MODULE = 500        # lines

# Every module stands in one layer and imports from its own or a lower one (see natfix/__init__.py).
LAYERS: dict[int, str] = {
    1: "natfix address errors message_ids",
    2: "algs catalogue commands config document edits expect far_signs headers hep kernel kernel.base "
       "masking packet pcapng quirks reports sdp segment shipped sip sip.fields sip.message stun",
    3: "deadlines dialogs far_ends happenings hearsay mappings ports pulse quotas registrations repeats "
       "shares spelling stream stream_framing stream_receiver stream_sender stream_way streams",
    4: "audio callflow draining engine far_fix keep_alives levels links listing media media_mappings memory "
       "realms refreshing policies registering repairs reporting rewrite rows settling signalling "
       "streaming targets turn",
    5: "firewall firewall_iptables firewall_nft firewall_now interfaces kernel.advertise kernel.conntrack "
       "kernel.divert kernel.elements kernel.events kernel.fake kernel.fake_conntrack kernel.fake_elements "
       "kernel.libnftables kernel.netfilter kernel.netlink kernel.observed kernel.probe "
       "kernel.sender kernel.trial programs",
    6: "__main__ advertiser agents asking background bundle bundle_parts capture capture_packets "
       "capturing check check_firewall check_fixers check_host check_lists check_outside check_own "
       "check_system chronicle cli control drain explained explaining exporting findings handing_over "
       "hook init journal leak listener live log_reader lookup loop metrics monitor order ownership "
       "page page_view parachute plan queue_reader recent redact redact_text reload removal resolver "
       "rules seeing shortages show startup store systemd tables terminal timekeeping up upkeep wall "
       "watch",
    7: "replay replay.as_json replay.as_text replay.capture replay.conversations replay.counts "
       "replay.datagrams replay.diagnosis replay.diff replay.drive replay.echoes replay.fragments "
       "replay.framing replay.gateway replay.hexdump replay.icmp replay.ip replay.ladder replay.link "
       "replay.main replay.media_seen replay.mermaid replay.messages replay.model replay.network "
       "replay.parsed replay.passages replay.pcap_reader replay.pcapng_reader "
       "replay.plots replay.products replay.reading replay.redact replay.replay replay.report "
       "replay.result replay.sightings replay.sip_text replay.snoop replay.source replay.spool "
       "replay.stages replay.summaries "
       "replay.symptoms.abuse replay.symptoms.audio replay.symptoms.dialogs replay.symptoms.families "
       "replay.symptoms.fixers replay.symptoms.gateways replay.symptoms.reading "
       "replay.symptoms.media_changes replay.symptoms.registrations replay.symptoms.replies "
       "replay.symptoms.talking replay.symptoms.transfers "
       "replay.symptoms.transport replay.tcp replay.text_heads replay.texts "
       "replay.visitors replay.work replay.write",
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}

# The core has no clock, chance, log, process or network; what it does follows from what it is given.
IMPURE = frozenset({
    "asyncio", "ctypes", "logging", "multiprocessing", "os", "queue", "random", "secrets", "select",
    "selectors", "signal", "sqlite3", "subprocess", "tempfile", "threading", "time", "uuid",
})
CORE = (1, 2, 3, 4)
# Packages of others, and the only modules that may name them.
OTHERS = {
    "dns": {"lookup"},
    "jinja2": {"page_view", "replay.report"}, "markupsafe": {"page_view", "replay.report"},
    "netfilterqueue": {"queue_reader"},
    "pyroute2": {"interfaces"}, "rich": {"terminal"},
}
# What has no test file of its own: packages, a protocol, and the module behind `python -m natfix`.
UNTESTED = frozenset({"natfix", "kernel", "kernel.base", "sip", "__main__", "replay", "replay.model"})


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "natfix"


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the full names of all that *tree* imports, wherever in the module that stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package, so that they can be searched for"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_imports(name: str) -> set[str]:
    """Return the modules of natfix that a module imports, by their short names."""
    short = {each.removeprefix("natfix.") for each in _imported(TREES[name]) if each.startswith("natfix")}
    return (short & MODULES.keys()) - {"natfix", name}


def _foreign_imports(name: str) -> set[str]:
    """Return the top-level names of all that a module imports from elsewhere."""
    return {each.split(".")[0] for each in _imported(TREES[name])} - {"natfix", "__future__"}


def test_every_module_has_its_layer() -> None:
    """LAYERS names every module once, and none that is gone."""
    assert set(LAYER_OF) == set(MODULES)
    assert sum(len(names.split()) for names in LAYERS.values()) == len(LAYER_OF)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name: str) -> None:
    """A module imports nothing of a layer above its own."""
    upward = {other for other in _own_imports(name) if LAYER_OF.get(other, 0) > LAYER_OF.get(name, 0)}
    assert not upward


def test_no_cycles() -> None:
    """No module needs itself, by whatever detour; imports inside functions count."""
    TopologicalSorter({name: _own_imports(name) for name in MODULES}).prepare()


@pytest.mark.parametrize("name", MODULES)
def test_imports_of_others(name: str) -> None:
    """Beside the standard library a module imports only what it is named for here."""
    others = _foreign_imports(name) - sys.stdlib_module_names
    assert others <= {package for package, users in OTHERS.items() if name in users}


@pytest.mark.parametrize("name", [name for name in MODULES if LAYER_OF.get(name) in CORE])
def test_core_is_pure(name: str) -> None:
    """Layers 1 to 4 do no I/O of their own: time is an argument, commands and notes are return values."""
    assert not _foreign_imports(name) & IMPURE


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_small(name: str) -> None:
    """No function is longer than a screen."""
    long = [
        f"{node.name}, {node.end_lineno - node.lineno + 1} lines" for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_small(name: str) -> None:
    """A module has one duty, and can be read at once."""
    assert len(MODULES[name].read_text().splitlines()) <= MAX_MODULE


@pytest.mark.parametrize("name", sorted(MODULES.keys() - UNTESTED))
def test_every_module_has_its_tests(name: str) -> None:
    """natfix/x.py is tested in tests/test_x.py, natfix/sip/x.py in tests/sip/test_x.py."""
    *folders, module = name.split(".")
    beginning = ROOT.joinpath("tests", *folders)
    assert list(beginning.glob(f"test_{module}.py")) or list(beginning.glob(f"test_{module}_*.py"))


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_says_what_it_pins(path: Path) -> None:
    """Each test has a docstring."""
    silent = [
        node.name for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent


def test_the_map_names_every_module() -> None:
    """Who reads the package's own docstring finds each module in it."""
    text = " ".join(f"{ast.get_docstring(TREES['natfix'])}".split())
    missing = {name for name in MODULES if f":mod:`~natfix.{name}`" not in text}
    assert missing == {"kernel", "natfix", "sip.message"}
