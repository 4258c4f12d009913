import os
import signal
import threading

import pytest
import torch
from hypothesis import settings

os.environ["UPO_CONFIG_DIR"] = "nowhere"  # what a person has tuned is not for the tests
torch.set_num_threads(1)  # tiny tensors: a second thread only makes the first wait
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# a runner that was started in the background ignores SIGINT, and so would every child of a test
if threading.current_thread() is threading.main_thread() and (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def float64():
    """What is made without a type is of double precision for a while."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
