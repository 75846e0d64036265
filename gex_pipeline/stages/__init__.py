"""The steps of a run, each a plain function that can be called again: what exists is not made anew.

Order, retries and schedules are the flow's; nothing here knows Prefect.
"""
