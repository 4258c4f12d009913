"""From a composed configuration to networks, learners and stages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from upo.core.console import signals_first
from upo.core.optim import part_of_stack
from upo.errors import InputError
from upo.evaluation.protocols import Protocol
from upo.learners.base import Learner
from upo.models.bins import Bins
from upo.models.calibration import Calibration
from upo.models.estimator import Estimator
from upo.models.imputation import PseudoLabel
from upo.pairs import PairSpace
from upo.training.debiasing import DebiasingModule
from upo.training.propensity import PropensityModule
from upo.training.refit import SUFFIX, RefitModule
from upo.training.stack import part_of_state
from upo.training.stage import StageModule, StagePlan

MODULES: dict[str, Callable[..., StageModule]] = {
    "propensity": PropensityModule,
    "debiasing": DebiasingModule,
}


def build_estimator(
    config: Mapping[str, Any] | DictConfig,
    space: PairSpace,
    make: Callable[[str, Any], Any] | None = None,
) -> Estimator:
    """Networks and parts of one estimator.

    Args:
        config: ``cfg.estimator``.
        space: The pair space.
        make: Builds a part from its settings, given what it is (``network``, ``weighting``,
            ``form`` or ``bins``); Hydra if not given, which builds whatever is named.

    Raises:
        InputError: If there is no prediction network.
    """
    make = make or _made
    if "prediction" not in config["networks"]:
        raise InputError(f"estimator.networks of {config['name']} lacks 'prediction'.")
    networks = {
        str(role): make("network", node)(space.sizes, purpose=str(role))
        for role, node in config["networks"].items()
    }
    kind = config.get("calibrate") or "none"
    if kind != "none" and config.get("weighting") is not None:
        networks["calibration"] = Calibration(space.sizes, kind=kind)
    parts = {
        part: make(part, config[part])
        for part in ("weighting", "form", "bins")
        if config.get(part) is not None
    }
    parts.setdefault("form", PseudoLabel())
    parts.setdefault("bins", Bins())
    of, form = space.target.name, type(parts["form"])
    if getattr(form, "target", of) != of:
        raise InputError(
            f"estimator.form {form.__name__} is of target={form.target}, and this estimator has "
            f"target={of}; choose another target= or leave estimator.form out."
        )
    return Estimator(space, networks, estimate=config.get("estimate", "doubly_robust"), **parts)


def _made(part: str, node: Any) -> Any:
    """A part by Hydra, a network without its sizes."""
    return instantiate(_unfinished(node) if part == "network" else node)


def build_stage(
    name: str,
    config: DictConfig,
    estimator: Estimator,
    protocol: Protocol,
    *,
    plan: StagePlan | None = None,
    lengths: Tensor | None = None,
    **running: Any,
) -> StageModule:
    """One stage: its module, with its learners in playing order.

    Args:
        name: Key of the stage in ``cfg.estimator.stages``.
        config: ``cfg.estimator``.
        estimator: The networks, shared by all stages.
        protocol: Selection protocol.
        plan: In the place of what the configuration says.
        lengths: ``[R]`` epochs of each replica, of a debiasing stage that selects nothing.
        **running: ``mar``, ``replay`` and ``compiled`` of ``StageModule``.

    Raises:
        InputError: If the stage names an unknown module or learner.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config.stages[name], resolve=True)  # type: ignore[assignment]
    module = settings.pop("module")
    players = list(settings.pop("first", [])) + list(settings.pop("learners", []))
    if module not in MODULES:
        raise InputError(
            f"estimator.stages.{name}.module must be one of {list(MODULES)}, got {module!r}."
        )

    def rebuild(members: Sequence[int]) -> tuple[Estimator, dict[str, Learner]]:
        space = estimator.space
        with part_of_stack(members, space.replicas):
            part = build_estimator(config, space.part(list(members)).cpu()).to(estimator.dtype)
            return part, _learners(name, players, config, part)

    stage: dict[str, Any] = {
        "estimator": estimator,
        "learners": _learners(name, players, config, estimator),
        "plan": plan or StagePlan(**settings),
        "name": name,
        "rebuild": rebuild,
        **running,
    }
    if module == "debiasing":
        stage["protocol"] = protocol
    if lengths is not None:
        return RefitModule(lengths=lengths, **stage | {"name": name + SUFFIX})
    return MODULES[module](**stage)


def _learners(
    stage: str, players: Sequence[str], config: DictConfig, estimator: Estimator
) -> dict[str, Learner]:
    """The learners of a stage by name, in playing order."""
    learners: dict[str, Learner] = {}
    for player in players:
        if player not in config.learners:
            raise InputError(
                f"estimator.stages.{stage} names learner {player!r}; estimator.learners defines "
                f"{list(config.learners)}."
            )
        learners[player] = build_learner(config.learners[player], estimator)
    return learners


def part_of(estimator: Estimator, config: DictConfig, members: Sequence[int]) -> Estimator:
    """Some replicas of an estimator as an estimator of their own.

    Args:
        estimator: All of them.
        config: ``cfg.estimator``.
        members: Replicas by number, in order; at least one.
    """
    space = estimator.space
    with part_of_stack(members, space.replicas):
        part = build_estimator(config, space.part(list(members)).cpu()).to(estimator.dtype)
    part.load_state_dict(part_of_state(estimator.state_dict(), members, space.replicas))
    return part.to(space.keys.device).train(estimator.training)


def build_learner(node: DictConfig, estimator: Estimator) -> Learner:
    """A player of its settings.

    Args:
        node: Settings of the learner.
        estimator: The networks.
    """
    learner: Learner = instantiate(_unfinished(node))(estimator)
    return learner


def _unfinished(node: DictConfig) -> dict[str, Any]:
    """Settings of a network or learner, with what is made in part (Hydra's ``_partial_``).

    That is the network or learner itself, which gets its sizes or networks later, an optimiser,
    which gets its parameters, and every function, which is passed and not called. A file may say
    otherwise with a ``_partial_`` of its own.
    """
    settings: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    _bind_functions(settings)
    return {"_partial_": True} | settings


def _bind_functions(tree: Any) -> None:
    """Mark optimisers, and put functions in the place of their settings, at any depth below."""
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(inner, dict | list):
            _bind_functions(inner)
        target = inner.get("_target_") if isinstance(inner, dict) else None
        if target is None:
            continue
        if key == "optimizer":
            inner.setdefault("_partial_", True)
        elif _is_function(target) and inner.get("_partial_", True):
            # Hydra's partial checks its target at every call, 0.15 ms; here it has been checked
            bound = instantiate({"_partial_": True} | inner)
            tree[key] = partial(bound.func, *bound.args, **bound.keywords)


def _is_function(target: str) -> bool:
    try:
        with signals_first():
            return not isinstance(get_object(target), type)
    except Exception:  # of whatever the name imports; making the object says what is wrong
        return False
