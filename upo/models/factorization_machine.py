"""Factorisation machines over user, item and the columns of their features."""

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, Sizes, normal
from upo.core.optim import Hyper
from upo.models.factorization import Biases, Embeddings, start_std
from upo.models.plain import Plain


class FactorizationMachine(Embeddings):
    r"""Second-order factorisation machine over the fields user, item and feature columns.

    .. math:: \mu + \sum_j w_j x_j + \sum_{j<l} \langle v_j, v_l\rangle x_j x_l

    With :math:`a=\sum_c v_c x_c` over the columns of both sides the pairs sum to
    :math:`\langle p_u, q_i\rangle+\langle p_u+q_i, a\rangle
    +\frac12(\|a\|^2-\sum_c \|v_c\|^2 x_c^2)`, O(fields x dim).

    A user or item without training rows contributes nothing of its own: features alone answer for
    it, also where it is no row of D. Without features this is ``MatrixFactorization`` with biases.

    Source: Rendle, "Factorization machines", ICDM 2010, eq. (1), lemma 3.1.

    Args:
        sizes: Users, items, seeds and, in the log, the features.
        dim: Embedding size, at least 1.
        init_std: Standard deviation of the initial embeddings.
        init_scale: The same in units of 1 / sqrt(dim); .1 if neither is given.
        biases: Linear terms of the users and items, and a global one.
        start: Where the global term starts: ``zero``; ``rate``, the logit of the share of
            positive training labels; or ``density``, that of |O| / |D|.
        purpose: Name of the network; networks of other names start elsewhere.

    Raises:
        InputError: If a setting is out of range.
    """

    replayable = True

    known_user: Tensor
    known_item: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        init_std: Hyper | None = None,
        init_scale: Hyper | None = None,
        biases: bool = True,
        start: str = "rate",
        purpose: str = "fm",
    ) -> None:
        std, seeds = start_std(dim, init_std, init_scale, 0.1 / max(dim, 1) ** 0.5), sizes.seeds
        super().__init__(sizes, dim, std, purpose)
        self.bias = Biases(sizes, start) if biases else None
        rows = _rows(sizes)
        columns = (None, None) if sizes.log is None else sizes.log.features
        logged = (None, None) if sizes.log is None else sizes.log.logged()
        for name, size, found in zip(
            ("known_user", "known_item"), (sizes.n_users, sizes.n_items), rows, strict=True
        ):
            self.register_buffer(name, (found > 0).view(len(seeds) * size))
        self.user_columns, self.item_columns = (
            None
            if table is None or seen is None
            else FeatureColumns(table, seen, seeds, std, dim, purpose + side)
            for table, seen, side in zip(columns, logged, ("cu", "ci"), strict=True)
        )

    @property
    def n_users(self) -> int:
        """Users that it answers for, those beyond D included."""
        return self.user.n if self.user_columns is None else self.user_columns.n

    @property
    def n_items(self) -> int:
        """Items that it answers for, those beyond D included."""
        return self.item.n if self.item_columns is None else self.item_columns.n

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        u, user_known = self._known(users, self.user, self.known_user)
        i, item_known = self._known(items, self.item, self.known_item)
        p = self.user(u) * user_known
        q = self.item(i) * item_known
        logit: Tensor = (p * q).sum(-1)
        if self.bias is not None:
            linear = self.bias.user(u) * user_known + self.bias.item(i) * item_known
            logit = logit + (linear.squeeze(-1) + self.bias.globe)
        sides = [
            columns(index)
            for columns, index in ((self.user_columns, users), (self.item_columns, items))
            if columns is not None
        ]
        if sides:
            linears, vectors, squares = (sum(parts) for parts in zip(*sides, strict=True))
            pairs = ((p + q) * vectors).sum(-1) + 0.5 * ((vectors**2).sum(-1) - squares)
            logit = logit + linears + pairs
        return logit

    @torch.no_grad()
    def plain(self) -> Plain:
        r"""Its sums over the fields of each side, which leave a bilinear logit.

        With :math:`a_u` the user's columns, :math:`U_u = p_u + a_u` and
        :math:`\langle p_u, a_u\rangle + \frac12(\|a_u\|^2 - \sum_c \|v_c\|^2 x_c^2)` beside
        the linear terms of the user; of items likewise.
        """
        sides = []
        for n, table, known, columns, linear in (
            (self.n_users, self.user, self.known_user, self.user_columns, "user"),
            (self.n_items, self.item, self.known_item, self.item_columns, "item"),
        ):
            index = torch.arange(n, device=table.weight.device).expand(table.replicas, -1)
            own, mask = self._known(index, table, known)
            vector = table(own) * mask
            bias = vector.new_zeros(vector.shape[:2])
            if self.bias is not None:
                bias = (getattr(self.bias, linear)(own) * mask).squeeze(-1)
            if columns is not None:
                weight, factors, squares = columns(index)
                bias = bias + weight + (vector * factors).sum(-1)
                bias = bias + 0.5 * ((factors**2).sum(-1) - squares)
                vector = vector + factors
            sides.append((vector, bias))
        (user, a), (item, b) = sides
        return Plain(user, item, a if self.bias is None else a + self.bias.globe, b)

    def features(self, users: Tensor, items: Tensor) -> Tensor:  # -> [R, B, 2 * dim]
        """Representation of the pairs: the sum of the factors of each side."""
        sides = []
        for index, table, known, columns in (
            (users, self.user, self.known_user, self.user_columns),
            (items, self.item, self.known_item, self.item_columns),
        ):
            own, mask = self._known(index, table, known)
            side = table(own) * mask
            sides.append(side if columns is None else side + columns(index)[1])
        return torch.cat(sides, dim=-1)

    @staticmethod
    def _known(
        index: Tensor, table: ReplicaEmbedding, known: Tensor
    ) -> tuple[Tensor, Tensor]:  # [R, B] -> [R, B] int64, [R, B, 1] 0 or 1
        """Rows of a table, any where an id has none, and whether the id has training rows."""
        inside = index.clamp(max=table.n - 1)
        found = known.view(table.replicas, table.n).gather(1, inside)
        return inside, (found & (index == inside)).unsqueeze(-1).to(table.weight.dtype)


class FeatureColumns(nn.Module):
    """Linear weights and factors of the feature columns of one side.

    Columns of numbers are standardised over those that the log has, columns of 0 and 1 stay, and
    all are divided by one number so that the squares of a row sum to 1 on average: the features
    of a row weigh what an id weighs, however many columns there are.

    Args:
        table: ``[N, d]`` finite features, N at least the users (items) of D.
        logged: ``[n]`` bool, users (items) of D with rows in the log.
        seeds: One for each replica.
        std: Initial standard deviation of the factors; linear weights start at 0.
        dim: Embedding size.
        purpose: Part of the seed.

    Attributes:
        mass: ``[d]`` mean square of each column over the rows that the log has; they sum to 1.
    """

    table: Tensor
    mass: Tensor

    def __init__(
        self,
        table: Tensor,
        logged: Tensor,
        seeds: list[int],
        std: Hyper,
        dim: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.n = len(table)
        scaled = scaled_columns(table, logged)
        self.register_buffer("table", scaled, persistent=False)
        self.register_buffer("mass", _seen(scaled, logged).square().mean(0), persistent=False)
        d = table.shape[1]
        self.linear = nn.Parameter(torch.zeros(len(seeds), d, 1))
        self.factors = nn.Parameter(normal(seeds, (d, dim), std, purpose))

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the columns of the rows ``[R, B]``.

        Returns:
            Linear terms ``[R, B]``, factors ``[R, B, dim]``, and squared lengths of the columns'
            own factors ``[R, B]``.
        """
        few = index.shape[-1] < self.n
        x = self.table[index] if few else self.table.expand(len(self.factors), -1, -1)
        own = (self.factors**2).sum(-1, keepdim=True)
        width = self.factors.shape[-1]
        weights = torch.cat([self.factors, self.linear], dim=-1)
        both, squares = torch.bmm(x, weights), torch.bmm(x**2, own)
        if not few:
            both = both.gather(1, index.unsqueeze(-1).expand(-1, -1, width + 1))
            squares = squares.gather(1, index.unsqueeze(-1))
        return both[..., width], both[..., :width], squares.squeeze(-1)


def scaled_columns(table: Tensor, logged: Tensor) -> Tensor:  # [N, d], [n] bool -> [N, d]
    """Numbers standardised over the logged rows, 0/1 columns as they are, rows of unit length."""
    seen = _seen(table, logged).double()
    flag = ((table == 0) | (table == 1)).all(0)
    mean, std = seen.mean(0), seen.std(0, correction=0)
    constant = std <= 1e-12 * mean.abs().clamp(min=1e-300)
    mean = torch.where(flag, 0.0, mean)
    std = torch.where(flag | constant, 1.0, std)
    length = ((seen - mean) / std).square().sum(-1).mean().sqrt().clamp(min=1e-12)
    return ((table.double() - mean) / std / length).float()


def _seen(table: Tensor, logged: Tensor) -> Tensor:  # [N, d], [n] bool -> [., d]
    """The rows that the log has, or all if there are none."""
    seen = table[: len(logged)][logged.to(table.device)]
    return seen if len(seen) else table


def _rows(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Training rows of each user and item; one each where nothing is known of the log."""
    if sizes.log is not None:
        users, items = sizes.log.rows_by_id()
        return users.cpu(), items.cpu()
    replicas = len(sizes.seeds)
    return torch.ones(replicas, sizes.n_users), torch.ones(replicas, sizes.n_items)
