"""The whole loop as plain functions over ports: watch, act, prove, tell, recover; `run_once` drives them all."""
