"""The control of inception_ablation: the same rows without batch norm.

What can go here, too, does not go because of batch norm.

    python -m experiments.inception_ablation_plain

A step takes about 7 ms on one core.
"""

from experiments import inception_ablation, runner

CONFIG = {
    **inception_ablation.CONFIG,
    "full": {**inception_ablation.FULL, "norm": False},
}
DEFINITIONS = {
    **inception_ablation.DEFINITIONS,
    "row": "BN-x5 less its batch norm, with one change undone, and with all undone",
}


def main(arguments=None):
    inception_ablation.undo("inception_ablation_plain", CONFIG, DEFINITIONS, arguments)


if __name__ == "__main__":
    runner.start(main)
