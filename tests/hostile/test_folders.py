"""A stranger's folder ends in one sentence, in 10 seconds and 1 GiB, and nothing of it is run."""

import importlib.util
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest

import upo
from upo import cli
from upo.data.world import SyntheticWorld
from upo.errors import InputError
from upo.fitted.run_folder import load_model
from upo.runs.resumed import recorded

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "hostile_folders", Path(__file__).parent / "folders.py"
)
folders = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(folders)
# toy models are worth nothing, which is not what is asked here
pytestmark = pytest.mark.filterwarnings("ignore::upo.errors.UselessModelWarning")
SECONDS, BYTES = 10, 2**30
FEW = ["a call in the pickle", "pandas behind a prefix", "escaped reference in a target",
       "nested target", "aliases", "a huge embedding", "100,000 seeds", "unsorted keys",
       "ids twice",
       "weights of NaN", "stride of 0", "contains itself", "a pipe", "zip bomb", "shorter storages",
       "dataset behind a prefix", "a huge world", "self-reference"]  # fmt: skip
SLOW = [kind for kind in (*folders.MODELS, *folders.RUNS) if kind not in FEW]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A saved model and a finished run."""
    home = tmp_path_factory.mktemp("sound")
    log = SyntheticWorld(30, 20, density=0.3).log()
    frame = pd.DataFrame(
        {"user": [f"u{u}" for u in log.users.tolist()], "item": log.items, "rating": log.ratings}
    )
    few = {"estimator.fit.epochs": 1, "estimator.stages.debias.epochs": 1}
    upo.fit(frame, estimator="ips", progress=False, overrides=few).save(home / "model")
    with pytest.MonkeyPatch.context() as patch:
        words = ["estimator=naive", "dataset.n_users=30", "dataset.n_items=20", "figures=false",
                 "estimator.stages.debias.epochs=1", "progress=false", "logger=none",
                 f"hydra.run.dir={home / 'run'}"]  # fmt: skip
        patch.setattr(sys, "argv", ["train.py", *words])
        cli.main()
    return home


def _answer(read, folder, pipe):
    """In a process of its own: what reading the folder says, how long it took, what it held."""
    before = _held("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (before + 3 * BYTES, before + 3 * BYTES))
    signal.alarm(3 * SECONDS)
    # seconds of computing: those of the clock are longer on a machine that does other things
    held, start = _held("VmRSS"), time.process_time()
    try:
        read(folder)
        said = None
    except InputError as error:
        said = str(error)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    pipe.send((said, time.process_time() - start, _held("VmHWM") - held))


def _held(what):
    """Bytes that this process holds, or has held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))


def asked(read, folder):
    mine, theirs = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = multiprocessing.get_context("fork").Process(
            target=_answer, args=(read, folder, theirs)
        )
        child.start()
    theirs.close()
    try:
        answer = mine.recv()
    except EOFError:
        answer = None
    child.join()
    mine.close()
    return answer


def check(kind, sound, tmp_path):
    canary = tmp_path / "canary"
    part = "model" if kind in folders.MODELS else "run"
    folder = folders.spoiled(sound / part, tmp_path / "folder", kind, canary)
    before = sorted(folder.rglob("*"))
    answer = asked(upo.load if part == "model" else load_model, folder)
    assert answer is not None, f"{kind}: hung or died"
    said, seconds, held = answer
    assert said is not None, f"{kind}: was read"
    assert ": " not in said[:20], (kind, said)  # another exception
    assert "; " in said, (kind, said)
    assert len(said) < 700, (kind, said)
    assert seconds < SECONDS, (kind, seconds)
    assert held < BYTES, (kind, held)
    assert not canary.exists(), kind
    assert sorted(folder.rglob("*")) == before, kind
    return said


@pytest.mark.parametrize("kind", FEW)
def test_a_hostile_folder_ends_in_a_sentence(kind, sound, tmp_path):
    check(kind, sound, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_every_hostile_folder_ends_in_a_sentence(kind, sound, tmp_path):
    check(kind, sound, tmp_path)


def test_there_are_as_many_as_promised():
    assert len(folders.MODELS) + len(folders.RUNS) + len(folders.OVERRIDES) >= 60


def test_sound_folders_are_read(sound):
    pairs = pd.DataFrame({"user": ["u1"], "item": [1]})
    assert upo.load(sound / "model").predict(pairs).between(0, 1).all()
    trusted = upo.load(sound / "model", trusted=True)
    assert trusted.predict(pairs).equals(upo.load(sound / "model").predict(pairs))
    run, vouched = load_model(sound / "run"), load_model(sound / "run", trusted=True)
    pairs = pd.DataFrame({"user": [1, 2], "item": [1, 3]})
    assert run.predict(pairs).equals(vouched.predict(pairs))


@pytest.mark.parametrize("override", folders.OVERRIDES)
def test_resume_takes_up_own_settings_alone(override, tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    text = folders.overrides_yaml(override, tmp_path / "canary")
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text(text)
    with pytest.raises(InputError, match=r"sets .*; if you trust it"):
        recorded(tmp_path / "run", [])
    said = override.replace("CANARY", str(tmp_path / "canary"))
    mine = recorded(tmp_path / "run", [said])  # the reader has said the same
    assert mine == ["seeds=1", "progress=false"]


def test_resume_takes_up_what_our_own_commands_record(tmp_path):
    own = ["dataset=table", "dataset.train=/data/my log.csv", "estimator=upo_dr", "seeds=[0,3]",
           "propensity@_global_.propensity=additive", "+trainer.max_time=00:01:00", "study=coat",
           "estimator.stages.debias.epochs=8", "~logger", "logger=none", "compile=auto",
           "dataset.name=my data", "paths.data_dir=../data"]  # fmt: skip
    (tmp_path / ".hydra").mkdir()
    lines = "".join(f"- {word}\n" for word in own)
    (tmp_path / ".hydra" / "overrides.yaml").write_text(lines + "- resume=x\n")
    assert recorded(tmp_path, []) == own


def test_resume_follows_no_link_out_of_the_folder(tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("- seeds=1\n")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of the folder"):
        recorded(tmp_path / "run", [])
