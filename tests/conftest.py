"""What all tests share."""

from nbval.plugin import IPyNbCell


def pytest_collection_modifyitems(items):
    # Notebooks are committed without execution counts. nbval takes a cell without one
    # for a cell that never ran and refuses its output, so we number them here.
    for item in items:
        if isinstance(item, IPyNbCell):
            item.cell["execution_count"] = item.cell_num + 1
