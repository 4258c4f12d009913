"""A matrix is completed once, kept in a file, and completed again where the file is damaged."""

from dataclasses import replace

import pytest
import torch
from processes import FORK
from small_semisynthetic import QUICK, rows

from upo.data.semisynthetic_cache import completed, fingerprint
from upo.data.semisynthetic_completion import Completion, LogRows


class Unexpected(Completion):
    def __call__(self, rows, n_users, n_items):
        raise AssertionError("completed again")


def cached(folder, log=None, completion=QUICK):
    return completed(log or rows(), 12, 9, completion, folder, "base")


def test_a_matrix_is_completed_once(tmp_path):
    first = cached(tmp_path / "new")
    again = cached(tmp_path / "new", completion=Unexpected(**vars(QUICK)))
    assert torch.equal(first.matrix, again.matrix)
    assert (first.epochs, first.valid_mse) == (again.epochs, again.valid_mse)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_other_rows_and_settings_have_other_files():
    log = rows()
    turned = LogRows(*(column.flip(0) for column in log))
    given = [(log, QUICK), (turned, QUICK), (log, replace(QUICK, decay=0.1))]
    keys = {fingerprint(lines, 12, 9, settings) for lines, settings in given}
    keys |= {fingerprint(log, 12, 10, QUICK)}
    assert len(keys) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "empty"])
def test_a_damaged_file_is_replaced(tmp_path, capsys, damage):
    first = cached(tmp_path)
    (path,) = tmp_path.iterdir()
    content = torch.load(path, weights_only=True)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        if damage == "flip":
            content["matrix"][3, 4] += 1e-3
        else:
            content["key"] = "0" * 64
        torch.save(content, path)
    assert capsys.readouterr().err == ""
    again = cached(tmp_path)
    assert torch.equal(first.matrix, again.matrix)
    assert f"{path} is damaged or not what its name says" in capsys.readouterr().err
    assert torch.equal(cached(tmp_path).matrix, first.matrix)
    assert capsys.readouterr().err == ""


def test_without_a_place_for_the_cache_a_run_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cached(tmp_path / "file").matrix.shape == (12, 9)
    assert "set dataset.cache_dir to a folder" in capsys.readouterr().err


def _completed(folder, gate, queue):
    gate.wait()
    queue.put(cached(folder).matrix.tolist())


def test_four_processes_complete_one_matrix(tmp_path):
    gate, queue = FORK.Barrier(4), FORK.Queue()
    processes = [FORK.Process(target=_completed, args=(tmp_path, gate, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found == [found[0]] * 4
    assert len(list(tmp_path.iterdir())) == 1
    assert cached(tmp_path, completion=Unexpected(**vars(QUICK))).matrix.tolist() == found[0]
