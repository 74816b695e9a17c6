"""Batches for ever, in an order that a checkpoint can continue."""

import torch


class Batches:
    """The indices of `size` images at a time: each epoch in a new order.

    together : the same images are always in one batch, and the batches in a new order.
    """

    def __init__(self, number, size, seed, together=False):
        self.number, self.size, self.together = number, size, together
        self.generator = torch.Generator().manual_seed(1000 + seed)
        self._shuffle()

    def _shuffle(self):
        self.before = self.generator.get_state()
        whole = self.number - self.number % self.size
        if self.together:
            groups = torch.arange(whole).reshape(-1, self.size)
            self.order = groups[torch.randperm(len(groups), generator=self.generator)]
        else:
            order = torch.randperm(self.number, generator=self.generator)
            self.order = order[:whole].reshape(-1, self.size)
        self.taken = 0

    def __next__(self):
        if self.taken == len(self.order):
            self._shuffle()
        self.taken += 1
        return self.order[self.taken - 1]

    def state_dict(self):
        return {"before": self.before, "taken": self.taken}

    def load_state_dict(self, state):
        self.generator.set_state(state["before"])
        self._shuffle()
        self.taken = state["taken"]
