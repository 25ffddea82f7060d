"""slotune inside Airflow: hooks, operators, triggers and wiring. The only place, beside dags/, that knows Airflow."""
