"""Train and measure one debiased recommender: ``python train.py dataset=coat estimator=upo_dr``."""

from upo.core.console import command


def train() -> None:
    """``upo train`` with the configuration of this checkout."""
    from upo.cli import main  # not before a signal would find its handler

    main()


if __name__ == "__main__":
    command(train)
