"""simclr on CIFAR-10 with the authors' settings; about 91 % linear in the authors' README.

Wants a GPU and `cifar10`; it has not been run to the end here.

`python recipes/cifar10_simclr.py [SEED ...]` writes cifar10_simclr.json.
"""

from recipe import Recipe

from tellapart.training.presets import simclr_cifar10

if __name__ == "__main__":
    Recipe("cifar10_simclr", "simclr", "cifar10", simclr_cifar10(), every=20, validation=0).main()
