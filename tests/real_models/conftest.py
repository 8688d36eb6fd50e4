import pytest


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "real_models: needs trained models that PyPI packages ship (see the module)"
    )


def pytest_collection_modifyitems(items):
    for item in items:
        if "real_models" in item.path.parts:
            item.add_marker(pytest.mark.real_models)
