"""Each replica keeps its own best epoch, as copies, and loses nothing to the others."""

from types import SimpleNamespace

import torch
from worlds import make_estimator, make_space

from upo.evaluation.protocols import Holdout
from upo.training.callbacks import ReplicaSelection
from upo.training.debiasing import DebiasingModule
from upo.training.stage import StagePlan

R = 3


def start(patience=0, seeds=(0, 1, 2)):
    estimator = make_estimator(make_space(seeds))
    module = DebiasingModule(
        protocol=Holdout(),
        estimator=estimator,
        learners={},
        plan=StagePlan(epochs=9, observed_batch=4),
        name="debias",
    )
    return module, ReplicaSelection(patience)


def judge(module, selection, epoch, values):
    """One epoch: every parameter becomes the epoch's number, then the validation is heard."""
    with torch.no_grad():
        for p in module.estimator.networks.parameters():
            p.fill_(float(epoch))
    module.first_epoch = epoch  # no trainer is attached, so its own count stays 0
    module.selection = torch.tensor(values, dtype=torch.float64)
    trainer = SimpleNamespace(should_stop=False, sanity_checking=False, current_epoch=epoch)
    selection.on_validation_end(trainer, module)
    return trainer.should_stop


def assert_epochs(tensors, epochs):
    for name, value in tensors.items():
        rows = value.reshape(len(epochs), -1)
        assert torch.equal(rows, torch.tensor(epochs).float()[:, None].expand_as(rows)), name


def test_every_replica_keeps_its_best_epoch():
    module, selection = start()
    for epoch, values in enumerate([[3, 2, 1], [2, 3, 1], [4, 1, 1], [5, 5, 5]]):
        assert not judge(module, selection, epoch, values)
    assert selection.best.tolist() == [2, 1, 1]
    assert selection.best_epoch.tolist() == [1, 2, 0]  # a tie does not replace
    assert_epochs(selection.snapshot, [1, 2, 0])
    selection.restore(module.estimator.networks)
    assert_epochs(dict(module.estimator.networks.named_parameters()), [1, 2, 0])


def test_snapshots_are_copies():
    """Training on changes neither the snapshot nor, after a restore, what it holds."""
    module, selection = start()
    judge(module, selection, 5, [1.0, 1.0, 1.0])
    networks = module.estimator.networks
    live = {p.untyped_storage().data_ptr() for p in networks.state_dict().values()}
    for restored in (False, True):
        if restored:
            selection.restore(networks)
            assert_epochs(dict(networks.named_parameters()), [5, 5, 5])
        with torch.no_grad():
            for p in networks.parameters():
                p.add_(1.0)
        assert_epochs(selection.snapshot, [5, 5, 5])
    assert live.isdisjoint(v.untyped_storage().data_ptr() for v in selection.snapshot.values())


def test_without_a_judged_epoch_nothing_is_restored():
    module, selection = start()
    before = [p.clone() for p in module.estimator.networks.parameters()]
    selection.restore(module.estimator.networks)
    for p, old in zip(module.estimator.networks.parameters(), before, strict=True):
        assert torch.equal(p, old)


def test_training_stops_when_every_replica_is_out_of_patience():
    module, selection = start(patience=2)
    stops = [
        judge(module, selection, epoch, values)
        for epoch, values in enumerate([[1, 3, 2], [2, 2, 3], [2, 4, 3], [2, 4, 3]])
    ]
    # replica 1 improved in epoch 1, so two epochs without improvement are over after epoch 3
    assert stops == [False, False, False, True]


def test_patience_zero_never_stops():
    module, selection = start()
    assert not any(judge(module, selection, epoch, [epoch] * R) for epoch in range(8))


def test_a_replica_out_of_patience_has_stopped_as_it_would_alone():
    values = [[1.0, 9.0], [2.0, 8.0], [2.0, 7.0], [0.5, 6.0]]
    module, selection = start(patience=2, seeds=(0, 1))
    for epoch, pair in enumerate(values):
        judge(module, selection, epoch, pair)
    module_alone, alone = start(patience=2, seeds=(0,))
    for epoch, (value, _) in enumerate(values):
        if judge(module_alone, alone, epoch, [value]):
            break
    assert selection.best_epoch[0] == alone.best_epoch[0]


def test_the_choice_survives_saving_and_loading():
    module, selection = start(patience=2)
    judge(module, selection, 0, [1.0, 2.0, 3.0])
    resumed = ReplicaSelection(patience=2)
    resumed.load_state_dict(selection.state_dict())
    judge(module, resumed, 1, [2.0, 1.0, 3.0])
    assert resumed.best_epoch.tolist() == [0, 1, 0]
    assert_epochs(resumed.snapshot, [0, 1, 0])
