"""Data tests keep what they cache to themselves."""

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COCA_CACHE", str(folder))
    return folder
