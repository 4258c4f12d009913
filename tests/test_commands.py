"""Every command explains its keys, refuses the others, and leaves with a status that is true."""

import resource
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from upo import __main__ as console_command
from upo.benchmark import split_arguments
from upo.core import console
from upo.core.arguments import Command, argument
from upo.core.files import write_atomically
from upo.errors import InputError, UnfinishedError
from upo.runs.config import Train
from upo.runs.overrides import default_choices, prepared, train_help
from upo.training.checkpoint import save_atomically

KEYED = sorted(set(console_command.COMMANDS) - {"train"})


def module_of(name):
    return import_module(console_command.COMMANDS[name][0].partition(":")[0])


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_every_key_and_runs_nothing(name, word, capsys):
    with pytest.raises(SystemExit) as stop:
        console_command.dispatch([name, "anything=1", word])
    assert not stop.value.code
    shown = capsys.readouterr().out
    command = module_of(name).COMMAND
    assert command.name == name
    for each in fields(command.kind):
        assert f"\n  {each.name}=" in shown
        assert each.metadata["about"].split()[0] in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert f"python -m {command.module or f'upo.{name}'}" in " ".join(shown.split())


def test_help_of_train_lists_groups_choices_and_keys(capsys):
    assert console_command.dispatch(["train", "--help"]) is None
    shown = capsys.readouterr().out
    assert shown == train_help()
    for group in default_choices():
        assert f"\n  {group}=NAME" in shown
    plain = {each.name for each in fields(Train)} - set(default_choices()) - {"paths"}
    for key in plain:
        assert f"\n  {key}=" in shown
    assert " coat, " in shown
    assert "trainer.max_time=" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_console_command_names_its_subcommands(capsys):
    assert console_command.dispatch([]) == 0
    assert console_command.dispatch(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in console_command.COMMANDS)
    assert console_command.dispatch(["--version"]) == 0
    assert capsys.readouterr().out.startswith("upo ")
    with pytest.raises(InputError, match="did you mean upo benchmark"):
        console_command.dispatch(["bench", "dataset=coat"])


def test_the_overview_loads_nothing_heavy():
    heavy = "'torch', 'lightning', 'pandas', 'pyarrow', 'matplotlib', 'numpy'"
    code = (
        "import sys; from upo.__main__ import dispatch; dispatch(['--help']);"
        f"sys.exit(sum(name in sys.modules for name in ({heavy})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


@dataclass(frozen=True)
class Keys:
    file: Path = argument("a file", must="file")
    count: int | None = argument("a count", default=None)
    rate: float = argument("a rate", default=0.5)
    names: tuple[str, ...] = argument("names", default=("a",), choices=("a", "b"))
    way: str = argument("one of two", default="up", choices=("up", "down"))
    flag: bool = argument("a flag", default=False)


STRICT = Command("try", "Try", Keys, ("file=FILE",))
LOOSE = Command("try", "Try", Keys, ("file=FILE",), rest="Other words.")
HERE = f"file={__file__}"
REFUSED = {
    "missing": ([], "file= is missing; write upo try file=FILE"),
    "no file": (["file=nowhere.csv"], "file=nowhere.csv is not a file"),
    "no number": ([HERE, "count=ten"], "count must be a whole number, got 'ten'"),
    "half a count": ([HERE, "count=1.5"], "count must be a whole number"),
    "no rate": ([HERE, "rate=fast"], "rate must be a number"),
    "twice": ([HERE, "rate=1", "rate=1"], "rate is given more than once"),
    "near": ([HERE, "counts=3"], "did you mean count=3?"),
    "far": ([HERE, "zzz=3"], "known are file, count, rate, names, way, flag"),
    "no key": ([HERE, "verbose"], "'verbose' is not understood"),
    "other name": ([HERE, "names=a,c"], "'c' is unknown"),
    "no name": ([HERE, "names="], "names nothing"),
    "other way": ([HERE, "way=left"], "way must be up or down"),
    "no flag": ([HERE, "flag=perhaps"], "flag must be true or false"),
    "empty": (["file="], "file is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_words_end_in_one_sentence(name):
    words, fragment = REFUSED[name]
    with pytest.raises(InputError) as error:
        STRICT.parse(words)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_right_words_become_their_types():
    words = [HERE, "count=3", "rate=1e-3", "names=[a, b]", "way=down", "flag=True"]
    given, rest = STRICT.parse(words)
    assert given == Keys(Path(__file__), 3, 1e-3, ("a", "b"), "down", True)
    assert rest == []
    assert STRICT.parse([HERE, "count=null"])[0].count is None
    assert LOOSE.parse(["x=1", HERE, "y"])[1] == ["x=1", "y"]


HOSTILE = {
    "umlaut": "größe.csv",
    "parentheses": "log(1).csv",
    "equals": "a=b.csv",
    "quote": "it's(1).csv",
    "braces": "a{b.csv",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_text_that_needs_quotes_is_shown_with_them(name):
    with pytest.raises(InputError, match="quote it") as error:
        prepared([f"dataset.train={HOSTILE[name]}"])
    (quoted,) = shlex.split(str(error.value).partition("quote it: ")[2])
    assert prepared([quoted]) == [quoted]
    assert OverridesParser.create().parse_override(quoted).value() == HOSTILE[name]


WORDS = {
    "no key": ("coat", "write key=value"),
    "misspelt key": ("seed=3", "did you mean seeds=?"),
    "misspelt key behind a plus": ("+seed=3", "did you mean seeds=?"),
    "no dataset": ("dataset=null", "a choice is needed; known are battery, coat, "),
    "misspelt trainer key": ("trainer.device=2", "did you mean trainer.devices?"),
    "no run folder": ("hydra.run.dir=", "hydra.run.dir= is empty, as from a variable"),
    "no folder of a sweep": ("hydra.sweep.dir=''", "hydra.sweep.dir= is empty"),
    "epochs of the trainer": ("+trainer.max_epochs=3", "estimator.stages.STAGE.epochs"),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_that_no_run_takes_are_refused_before_hydra_sees_them(name):
    word, fragment = WORDS[name]
    with pytest.raises(InputError) as error:
        prepared([word])
    assert fragment in str(error.value)


# of Lightning's trainer: once a traceback, ignored, or without the results they seem to give
OF_STAGES = (
    *("max_epochs", "max_steps", "enable_progress_bar", "callbacks", "logger", "profiler"),
    *("enable_checkpointing", "log_every_n_steps", "num_sanity_val_steps", "enable_model_summary"),
    *("limit_train_batches", "limit_val_batches", "barebones"),
)


@pytest.mark.parametrize("key", OF_STAGES)
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_what_stages_decide_is_refused_with_and_without_a_plus(key, plus):
    with pytest.raises(InputError, match=rf"^trainer\.{key} is not for a run to set: .*; leave it"):
        prepared([f"{plus}trainer.{key}=1"])


def test_words_for_hydra_pass():
    flags = ["-m", "--cfg", "job", "-p", "estimator", "--info", "~variant"]
    words = ["dataset=coat,yahoo", "estimator.learners.x.lr=1e-3", "hydra.run.dir=a", "seeds=[0,1]"]
    assert prepared([*flags, *words]) == [*flags, *words]
    assert prepared(["experiment=null", "variant=null"]) == []  # their default
    assert prepared(["trainer.max_time='00:01:00:00'"]) == ["++trainer.max_time='00:01:00:00'"]
    assert prepared(["+trainer.max_time='00:01:00:00'"]) == ["+trainer.max_time='00:01:00:00'"]


@pytest.mark.parametrize(
    ("word", "fragment"),
    [
        ("logger=csv", "not logged"),
        ("estimator=ips", "estimators=A,B"),
        ("resume=outputs", "goes on where it stopped"),
        ("-m", "takes no -m"),
        ("hydra.run.dir=x", "takes no hydra.run.dir=x"),
        ("estimators=upo_rd", "did you mean upo_dr"),
        ("estimators=", "names nothing"),
        ("seed=1", "did you mean seeds"),
    ],
)
def test_a_benchmark_refuses_what_its_runs_cannot_use(word, fragment):
    with pytest.raises(InputError) as error:
        split_arguments(["dataset=synthetic", word])
    assert fragment in str(error.value)


def raising(error):
    def function():
        raise error

    return function


FULL = OSError(28, "No space left on device", "outputs/debias.pt")
ENDS = {
    "input": (InputError("k must be 1."), 1, "error: k must be 1."),
    "time": (UnfinishedError("over; resume=x goes on."), 75, "resume=x goes on"),
    "interrupt": (KeyboardInterrupt(), 130, "interrupted; files that were written are complete"),
    "terminated": (console.Terminated(), 143, "stopped by SIGTERM"),
    "no memory": (MemoryError("Unable to allocate 3 GiB"), 1, "memory ran out (Unable to allocate"),
    "no memory in Arrow": (pa.ArrowMemoryError("malloc of size 9 failed"), 1, "memory ran out"),
    "no memory of a device": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        1,
        "memory ran out (CUDA out of memory",
    ),
    "no memory in torch": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        1,
        "fewer seeds or smaller batches",
    ),
    "full disk": (FULL, 1, "outputs/debias.pt: No space left on device; free space"),
    "hostile text": (InputError("file \x1b[2Ja\u202eb\nc"), 1, r"file \x1b[2Ja\u202eb c"),
    "wrapped": (RuntimeError("outer"), 1, "inner"),
}
ENDS["wrapped"][0].__cause__ = InputError("inner")
# a library whose tidying fails over a signal wraps what came of it
for name, stop, status in (
    ("behind an error", KeyboardInterrupt(), 130),
    ("termination behind an error", console.Terminated(), 143),
):
    ENDS[name] = (ValueError("half a tree"), status, "files that were written are complete")
    ENDS[name][0].__cause__ = AttributeError()
    ENDS[name][0].__cause__.__context__ = stop


@pytest.mark.parametrize("name", ENDS)
def test_a_command_ends_in_one_sentence_and_its_status(name, capsys):
    error, status, fragment = ENDS[name]
    with pytest.raises(SystemExit) as stop:
        console.sentences(raising(error))
    said = capsys.readouterr().err
    assert stop.value.code == status
    assert fragment in said
    assert said.count("\n") == 1


def test_a_sentence_has_an_end(capsys):
    with pytest.raises(SystemExit):
        console.sentences(raising(InputError("x" * 10**6)))
    assert len(capsys.readouterr().err) < 1000


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        console.sentences(lambda: 1 / 0)


def test_advice_is_the_innermost_that_was_left(capsys):
    def function():
        with console.advice("resume=x goes on"):
            raise console.Terminated

    with pytest.raises(SystemExit):
        console.sentences(function)
    assert capsys.readouterr().err.endswith("are complete; resume=x goes on.\n")


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "from upo.core.arguments import table\nfrom upo.core.console import command\n" + (
        "def much():\n    for i in range(10**5):\n        print(i)\ncommand(much)"
    )
    call = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -n 1"
    done = subprocess.run(call, shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize("what", ["text", "checkpoint", "large checkpoint"])
def test_a_file_that_cannot_be_written_to_its_end_is_named(tmp_path, what, capsys):
    """A limit on the size of files stands for a full disk; it is lifted again."""
    path = tmp_path / "folder" / "file"
    write = {
        "text": lambda: write_atomically(path, "a" * 10**5),
        "checkpoint": lambda: save_atomically({"a": torch.zeros(10**4)}, path),
        "large checkpoint": lambda: save_atomically({"a": torch.zeros(10**6)}, path),
    }[what]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(SystemExit) as stop:
            console.sentences(write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)
    assert stop.value.code == 1
    assert f"{path}: File too large; free space there" in capsys.readouterr().err
    assert not list(path.parent.iterdir())


def test_words_of_hydras_own_flags_are_no_settings():
    words = ["estimator=dr_jl", "--info", "defaults-tree", "--cfg", "job", "-p", "estimator"]
    assert prepared(words) == words
    with pytest.raises(InputError, match="'seeds' is not understood"):
        prepared(["--info", "defaults", "seeds"])
