"""Metrics to incidents: reads Prometheus, detects anomalies, opens incidents. Knows nothing of tuning or Airflow."""
