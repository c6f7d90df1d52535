"""Greenroom's wheel beside the oldest, the newest and mixed versions of what it is served with.

pytest -m nightly tests/matrix        (minutes: each set gets an environment of its own)
"""
