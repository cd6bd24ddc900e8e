"""spread on CIFAR-10 with the authors' settings; 83.6 % kNN in the paper.

Wants a GPU and `cifar10`; it has not been run to the end here.

`python recipes/cifar10_spread.py [SEED ...]` writes cifar10_spread.json.
"""

from recipe import Recipe

from tellapart.training.presets import spread_cifar10

if __name__ == "__main__":
    Recipe("cifar10_spread", "spread", "cifar10", spread_cifar10(), every=20, validation=0).main()
