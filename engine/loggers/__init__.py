"""Where the metrics of a run are written."""
