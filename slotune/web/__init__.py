"""The page: the views of slotune.views as HTML and as metrics, in Airflow's frame or by `slotune serve`."""
