"""What all tests share."""

import sys
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

# What takes longest begins first, so that the workers end together; then the other
# notebooks, then the other tests.
LONG = "test_site", "test_zoo", "18_pitfalls", "20_many_machines", "test_exercises"
LONG += "test_inpage", "test_pairs", "test_tracers", "test_many_machines"


def turn(item):
    name = item.path.stem
    rank = LONG.index(name) if name in LONG else len(LONG)
    return rank, not isinstance(item, IPyNbCell)


def pytest_collection_modifyitems(items):
    items.sort(key=turn)
    # Notebooks are committed without execution counts. nbval takes a cell without one
    # for a cell that never ran and refuses its output, so we number them here.
    for item in items:
        if isinstance(item, IPyNbCell):
            item.cell["execution_count"] = item.cell_num + 1


@pytest.fixture(autouse=True)
def _seed():
    """What a test draws does not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """The experiments compute with one thread; the other tests as they did before."""
    torch = sys.modules["torch"]
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(playwright):
    import pdf

    try:
        browser = pdf.chromium(playwright)
    except SystemExit as why:
        pytest.skip(str(why))
    yield browser
    browser.close()


@pytest.fixture
def firefox(playwright):
    """Another engine: a new browser of Playwright's own, where it is installed."""
    if not Path(playwright.firefox.executable_path).is_file():
        pytest.skip("no Firefox: `playwright install firefox`")
    browser = playwright.firefox.launch()
    yield browser.new_context(reduced_motion="reduce")
    browser.close()


@pytest.fixture(scope="module")
def base():
    """The site's address while it is served on this machine."""
    import pdf

    with pdf.served() as address:
        yield address
