"""A fitted estimator of the Python API: predict, recommend, save and load."""

import math
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from upo.assembly import build_estimator
from upo.checkpoint import save_atomically
from upo.data.frames import check_nulls, to_arrow
from upo.data.interactions import Ids
from upo.distributed import rank
from upo.errors import InputError
from upo.estimator import Estimator
from upo.frame_ids import check_columns, find_places, plain_ids, restored_ids, spread
from upo.pairs import Pairs, PairSpace

SCHEMA = 1
FILE = "model.pt"
BLOCK = 2**17  # pairs x replicas predicted at once


class Fitted:
    """A trained estimator that answers for the ids of the table it was fitted on.

    Of several seeds the mean answers; ``average=False`` gives a column for each. An id that neither
    train nor test had gets a mean: an unseen user the item's mean over the users of train, an
    unseen item the user's mean over the items of train, both unseen the mean over both (each over
    4,096 evenly spread ones where train has more).

    Attributes:
        estimator: The networks.
        metrics: A row for each seed, columns as in ``results.csv``; NaN where nothing was measured.
        columns: What pair tables call the user and the item.
        user_ids: Ids by index.
        item_ids: Ids by index.
    """

    def __init__(
        self,
        estimator: Estimator,
        config: DictConfig,
        *,
        metrics: pd.DataFrame,
        columns: tuple[str, str],
        user_ids: Ids,
        item_ids: Ids,
    ) -> None:
        self.estimator, self.metrics, self.columns = estimator.eval(), metrics, columns
        self.user_ids, self.item_ids = user_ids, item_ids
        self._config = config
        users = torch.div(estimator.space.keys, estimator.space.n_items, rounding_mode="floor")
        self._users = torch.unique(users)  # those with rows in train
        self._items = torch.unique(estimator.space.keys - users * estimator.space.n_items)

    @property
    def seeds(self) -> list[int]:
        """One for each column of ``average=False``."""
        return [int(seed) for seed in self.estimator.space.seeds]

    def __repr__(self) -> str:
        size = f"{len(self.user_ids):,} users x {len(self.item_ids):,} items"
        return f"<upo.Fitted {self._config.name}: {size}, seeds {self.seeds}>"

    def predict(self, pairs: Any, *, average: bool = True) -> "pd.Series[float] | pd.DataFrame":
        """P(positive rating) of each pair, debiased.

        Args:
            pairs: A data frame with the user and the item column.
            average: The mean over the seeds as a series; otherwise a column for each seed.

        Raises:
            InputError: If a column is missing or has gaps.
        """
        return self._answer("prediction", pairs, average)

    def propensity(self, pairs: Any, *, average: bool = True) -> "pd.Series[float] | pd.DataFrame":
        """P(observed) of each pair as learned, that is before the clip of the weights.

        Args:
            pairs: A data frame with the user and the item column.
            average: The mean over the seeds as a series; otherwise a column for each seed.

        Raises:
            InputError: If a column is missing or has gaps, or the estimator learns no propensity.
        """
        if not self.estimator.has_propensity:
            raise InputError(
                f"estimator {self._config.name} learns no propensity; fit one that does, for "
                "example estimator='ips'."
            )
        return self._answer("propensity", pairs, average)

    def recommend(self, users: Any, k: int = 10, *, exclude_seen: bool = True) -> pd.DataFrame:
        """The ``k`` items of the highest mean prediction for each user, best first.

        Only items that train has are recommended: nothing was learned about others. A user with
        fewer than ``k`` of them left gets fewer rows.

        Args:
            users: Ids, or a single one; unseen ones get the items that please on average.
            k: Items for each user, at least 1.
            exclude_seen: Leave out the pairs that train has.

        Returns:
            Columns user, item (as in the fitted table), score, rank (from 1).

        Raises:
            InputError: If ``k`` is below 1 or a user is missing.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k must be a whole number of at least 1, got {k!r}; try 10.")
        user, item = self.columns
        single = isinstance(users, str) or not isinstance(users, Iterable)
        asked = pd.DataFrame({user: [users] if single else list(users)})
        table = to_arrow(asked, [user], "users")
        check_nulls(table, "users")
        # every user once, and all unseen ones together, as they get the same
        places, row = torch.unique(find_places(table[user], self.user_ids), return_inverse=True)
        found = [
            self._best(part, int(k), exclude_seen)
            for part in torch.split(places, max(1, BLOCK // len(self._items)))
        ]
        scores, items = (torch.cat(part) for part in zip(*found, strict=True))
        scores, items = scores[row], items[row]
        asked_row, place = torch.nonzero(scores > -math.inf, as_tuple=True)
        return pd.DataFrame(
            {
                user: asked[user].to_numpy()[asked_row.numpy()],
                item: self.item_ids[items[asked_row, place].numpy()],
                "score": scores[asked_row, place].numpy(),
                "rank": place.numpy() + 1,
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write the model as one file, atomically: tensors and plain values, nothing executable.

        Args:
            folder: Where; it is made if it is not there.

        Returns:
            The file.

        Raises:
            InputError: If the ids are neither text nor whole numbers, or the folder cannot be
                written.
        """
        path, space = Path(folder) / FILE, self.estimator.space
        content = {
            "schema": SCHEMA,
            "upo": version("upo"),
            "config": OmegaConf.to_yaml(self._config),
            "networks": self.estimator.state_dict(),
            "seeds": self.seeds,
            "keys": space.keys.cpu(),
            "columns": list(self.columns),
            "user_ids": plain_ids(self.user_ids, "user"),
            "item_ids": plain_ids(self.item_ids, "item"),
            "metrics": {name: self.metrics[name].tolist() for name in self.metrics},
        }
        if rank() == 0:
            try:
                save_atomically(content, path)
            except OSError as error:
                raise InputError(
                    f"{path} cannot be written ({error.strerror or error}); mend the folder's "
                    "permissions or choose another."
                ) from error
        return path

    def _answer(self, what: str, pairs: Any, average: bool) -> "pd.Series[float] | pd.DataFrame":
        user, item = self.columns
        check_columns(pairs, [user, item], "pairs")
        table = to_arrow(pairs, [user, item], "pairs")
        check_nulls(table, "pairs")
        places = find_places(table[user], self.user_ids), find_places(table[item], self.item_ids)
        values = self._values(what, *places)
        index = pairs.index if isinstance(pairs, pd.DataFrame) else None
        if average:
            return pd.Series(values.mean(0).numpy(), index=index, name=what)
        return pd.DataFrame(values.T.numpy(), index=index, columns=self.seeds)

    def _best(self, users: Tensor, k: int, exclude_seen: bool) -> tuple[Tensor, Tensor]:
        """Scores and items, ``[U, k]`` each; -inf where nothing is left."""
        grid_users = users.repeat_interleave(len(self._items))
        grid_items = self._items.cpu().repeat(len(users))
        scores = self._values("prediction", grid_users, grid_items).mean(0)
        if exclude_seen:
            where = self._items.device
            _, seen = self.estimator.space.find(
                grid_users.clamp(min=0).to(where), grid_items.to(where)
            )
            scores[seen.cpu() & (grid_users >= 0)] = -math.inf
        top = scores.view(len(users), len(self._items)).topk(min(k, len(self._items)), dim=1)
        return top.values, self._items.cpu()[top.indices]

    def _values(self, what: str, users: Tensor, items: Tensor) -> Tensor:
        """``[R, N]`` float64 values of any indices, of which -1 is an unseen one."""
        values = torch.empty(len(self.seeds), len(users), dtype=torch.float64)
        new_user, new_item = users < 0, items < 0
        known = ~(new_user | new_item)
        values[:, known] = self._known(what, users[known], items[known])
        for rows, lines, of_users in (
            (new_user & ~new_item, items, False),
            (new_item & ~new_user, users, True),
        ):
            if rows.any():
                line, place = torch.unique(lines[rows], return_inverse=True)
                values[:, rows] = self._means(what, line, of_users)[:, place]
        both = new_user & new_item
        if both.any():
            means = self._means(what, spread(self._items.cpu()), of_users=False)
            values[:, both] = means.mean(1, keepdim=True)
        return values

    def _means(self, what: str, lines: Tensor, of_users: bool) -> Tensor:  # [R, len(lines)]
        """Means of users over the items of train, or of items over its users."""
        others = spread((self._items if of_users else self._users).cpu())
        means = []
        for part in torch.split(lines, max(1, BLOCK // len(others))):
            grid = part.repeat_interleave(len(others)), others.repeat(len(part))
            values = self._known(what, *(grid if of_users else grid[::-1]))
            means.append(values.view(len(self.seeds), len(part), -1).mean(-1))
        return torch.cat(means, dim=1)

    @torch.no_grad()
    def _known(self, what: str, users: Tensor, items: Tensor) -> Tensor:  # [N] x 2 -> [R, N]
        space, size = self.estimator.space, max(1, BLOCK // len(self.seeds))
        values = [torch.empty(len(self.seeds), 0, dtype=torch.float64)]
        for u, i in zip(torch.split(users, size), torch.split(items, size), strict=True):
            grid = [x.to(space.keys.device).expand(len(self.seeds), -1) for x in (u, i)]
            pairs = Pairs(grid[0], grid[1], space, len(u))
            if what == "propensity":
                value = self.estimator.propensity(pairs)
            else:
                value = torch.sigmoid(self.estimator.logit(what, pairs))
            values.append(value.double().cpu())
        return torch.cat(values, dim=1)


def load(folder: str | Path, *, trusted: bool = False) -> Fitted:
    """Read what ``Fitted.save`` wrote; nothing in the file is executed.

    Args:
        folder: The folder, or the file in it.
        trusted: Also build networks that are not of upo itself; their code is then run.

    Raises:
        InputError: If the file is missing, damaged, or of another schema.
    """
    path = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
    if not path.is_file():
        raise InputError(f"{path} is not there; give the folder that .save wrote to.")
    damaged = f"{path} is not a readable model of upo; restore the file or fit again."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds
        raise InputError(damaged) from error
    if not isinstance(content, dict) or "schema" not in content:
        raise InputError(damaged)
    if content["schema"] != SCHEMA:
        raise InputError(
            f"{path} has model schema {content['schema']} (written by upo {content.get('upo')}), "
            f"upo {version('upo')} reads {SCHEMA}; install the version that wrote it or fit again."
        )
    try:
        config = OmegaConf.create(content["config"])
        assert isinstance(config, DictConfig)  # written as a mapping
        if not trusted:
            _check_targets(config, path)
        ids = [restored_ids(content[name]) for name in ("user_ids", "item_ids")]
        keys, sizes = content["keys"], [len(x) for x in ids]
        space = PairSpace(keys, torch.zeros(len(keys)), sizes[0], sizes[1], content["seeds"])
        networks = build_estimator(config, space)
        networks.load_state_dict(content["networks"])
        return Fitted(
            networks,
            config,
            metrics=pd.DataFrame(content["metrics"]),
            columns=(content["columns"][0], content["columns"][1]),
            user_ids=ids[0],
            item_ids=ids[1],
        )
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file brings about
        raise InputError(damaged) from error


def _check_targets(config: DictConfig, path: Path) -> None:
    """Only networks and parts of upo are built from a file: a file could name any function."""
    parts = ("networks", "weighting", "form", "bins")
    trees = [OmegaConf.to_container(config, resolve=True)]
    trees = [tree.get(part) for tree in trees if isinstance(tree, dict) for part in parts]
    while trees:
        tree = trees.pop()
        if isinstance(tree, list):
            trees += tree
        elif isinstance(tree, dict):
            trees += tree.values()
            target = str(tree.get("_target_", "upo.models."))
            home, _, name = target.rpartition(".")
            inside = home.startswith("upo.models.") and home.count(".") == 2 and name[:1].isupper()
            if "_target_" in tree and not inside:
                raise InputError(
                    f"{path} would build {target}, which is not of upo.models; if you trust the "
                    "file, upo.load(..., trusted=True)."
                )
