"""`metrics.csv` in the run folder."""

import csv
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run folder itself. A resumed run keeps the lines up to the step that it starts from.

    Args:
        run_dir: the run folder.
        first_step: optimizer steps already taken.
    """

    def __init__(self, run_dir: Path, first_step: int):
        path = run_dir / "metrics.csv"
        earlier: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                earlier = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
        # Every line at once: a run that is killed leaves what it had.
        super().__init__(save_dir=run_dir, name="", version="", flush_logs_every_n_steps=1)
        if earlier:
            self.experiment.metrics = earlier
            self.experiment.save()

    @property
    def log_dir(self) -> str:
        """The run folder, without a folder for each version."""
        return str(self.root_dir)

    def save(self) -> None:
        """Write the lines so far, without Lightning's hparams.yaml: `.hydra/` has the configuration."""
        self.experiment.save()
