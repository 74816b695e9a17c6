"""Draw the picture of the README and the landing page from the stored MNIST run.

python -m experiments.picture
"""

from pathlib import Path

import matplotlib.pyplot as plt

from bnlib import figures
from experiments.provenance import RESULTS, read

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "chapters/_static/picture.svg"
TITLES = {"baseline": "without batch norm", "batch_norm": "with batch norm"}


def draw():
    """Test accuracy and a typical unit's input over training, with and without."""
    mnist = read(RESULTS / "mnist_percentiles.json")
    figures.style()
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.9), width_ratios=(1.2, 1, 1))
    colours = (figures.COLOURS["vermilion"], figures.COLOURS["blue"])
    axes[2].sharey(axes[1])
    for band, (network, title), colour in zip(
        axes[1:], TITLES.items(), colours, strict=True
    ):
        for run in (r for r in mnist["runs"] if r["network"] == network):
            line = {"color": colour, "linestyle": "-", "linewidth": 1.2}
            axes[0].semilogx(mnist["steps"], run["test_accuracy"], **line)
            unit = run["typical_unit"]
            shade = {"alpha": 0.12, "color": colour}
            band.fill_between(mnist["steps"], unit["p15"], unit["p85"], **shade)
            band.plot(mnist["steps"], unit["p50"], **line)
        band.set(title=title, xlabel="step", xticks=(0, 25_000, 50_000))
    axes[0].set(xlabel="step", ylabel="test accuracy", title="MNIST, five seeds each")
    axes[0].set_xlim(left=10)
    axes[0].text(12, 0.95, "with batch norm", color=colours[1])
    axes[0].text(2500, 0.45, "without\nbatch norm", color=colours[0])
    axes[1].set_ylabel("input of a sigmoid")
    return fig


if __name__ == "__main__":
    TARGET.write_text(figures.to_svg(draw()) + "\n")
    print(f"wrote {TARGET.relative_to(HERE.parent)}")
