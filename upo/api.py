"""The Python API: fit a data frame, predict, recommend, save, load."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from upo.benchmark import CONF
from upo.cli import _cause, quiet
from upo.data.datamodule import RatingDataModule
from upo.data.frames import Columns, _check_nulls, _encode, rating_data_from_frames, to_arrow
from upo.data.interactions import Ids, LabelRule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.estimator import Estimator
from upo.experiment import Experiment
from upo.fitted_file import read_model, write_model
