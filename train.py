"""Train and measure one debiased recommender: ``python train.py dataset=coat estimator=upo_dr``."""

from pathlib import Path

from upo.cli import main

if __name__ == "__main__":
    main(str(Path(__file__).resolve().parent / "conf"))
