"""Prefect flows: order, retries, schedules. No data logic."""
