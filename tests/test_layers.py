"""The house of ``docs/architecture.md``: a room imports only what lies below it."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "upo"
# a folder or a single module of upo/ -> what it may import, all of which lies below it
ROOMS = {
    "errors": "",
    "core": "errors",
    "functional": "core errors",
    "figures": "core errors",
    "tables": "core errors",
    "losses": "functional",
    "metrics": "functional core errors",
    "data": "tables core errors",
    "pairs": "data tables functional core errors",
    "models": "pairs functional core errors",
    "learners": "models pairs functional core errors",
    "evaluation": "models pairs data metrics functional core errors",
    "training": "learners evaluation models pairs functional core errors",
    "runs": "training evaluation learners models pairs data figures metrics tables core errors",
    "counterfactual": "data tables core errors",
    "audit": "models figures functional tables data core errors",
    "report": "runs figures metrics core errors",
    "fitted": "runs training evaluation models pairs data tables core errors",
    "api": "propensity fitted runs metrics data pairs tables core errors",
    "sklearn": "api propensity fitted core errors",
    "lenskit": "api propensity fitted tables core errors",
    "propensity": "audit fitted runs evaluation data tables core errors",
    "cli": "runs training core errors",
    "predict": "fitted tables core errors",
    "tuning": "runs core errors",
    "benchmark": "report runs core errors",
    "__main__": "core errors",
}


def room_of(path):
    relative = path.relative_to(HOUSE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path):
    """Modules of upo that a file imports anywhere, also within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "upo")


def modules():
    return sorted(p for p in HOUSE.rglob("*.py") if p != HOUSE / "__init__.py")


@pytest.mark.parametrize("room", sorted({room_of(path) for path in modules()}))
def test_a_room_imports_only_what_lies_below(room):
    allowed = {room, *ROOMS[room].split()}
    wrong = [
        f"{path.relative_to(HOUSE)} imports {name}"
        for path in modules()
        if room_of(path) == room
        for name in imported(path)
        if name.split(".")[1] not in allowed
    ]
    assert not wrong


def floors():
    found = {}

    def floor(room):
        below = ROOMS[room].split()
        return found.setdefault(room, 1 + max(map(floor, below), default=0))

    return {room: floor(room) for room in ROOMS}


def test_the_house_has_no_stairs_that_lead_up_and_few_floors():
    assert max(floors().values()) <= 13  # a circle would not end
    assert len(ROOMS) <= 30


def test_no_module_imports_itself_by_a_detour():
    names = {}
    for path in HOUSE.rglob("*.py"):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    below = {
        name: {
            target
            for full in imported(path)
            for target in (full, full.rpartition(".")[0])
            if target in names and target != name
        }
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    done, under_way = set(), []

    def visit(name):
        if name in done or name not in below:
            return
        assert name not in under_way, " -> ".join([*under_way, name])
        under_way.append(name)
        for target in sorted(below[name]):
            visit(target)
        done.add(under_way.pop())

    for name in below:
        visit(name)
