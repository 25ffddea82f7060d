"""A Kubernetes-shaped API server for the demo and the tests: `server.KubernetesApi`."""
