"""Where metrics go: `metrics.csv` in the run folder, and a dashboard that also shows how a run ended."""
