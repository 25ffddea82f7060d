"""What Grafana and Prometheus show and say of slotune and its services, made from services.yaml."""
