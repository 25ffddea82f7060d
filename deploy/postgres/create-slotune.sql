-- The ledger has a database of its own beside Airflow's; runs once, when the data folder is made.
CREATE DATABASE slotune;
