"""supcon on CIFAR-10 with the authors' settings; 96.0 % in the paper (ResNet-50, with labels).

Wants a GPU and `cifar10`; it has not been run to the end here.

`python recipes/cifar10_supcon.py [SEED ...]` writes cifar10_supcon.json.
"""

from recipe import Recipe

from tellapart.training.presets import supcon_cifar10

if __name__ == "__main__":
    Recipe("cifar10_supcon", "supcon", "cifar10", supcon_cifar10(), every=20, validation=0).main()
