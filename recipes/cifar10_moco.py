"""moco on CIFAR-10 with the authors' settings; 82.6 % kNN after 200 epochs in the authors'
notebook.

Wants a GPU and `cifar10`; it has not been run to the end here.

`python recipes/cifar10_moco.py [SEED ...]` writes cifar10_moco.json.
"""

from recipe import Recipe

from tellapart.training.presets import moco_cifar10

if __name__ == "__main__":
    Recipe("cifar10_moco", "moco", "cifar10", moco_cifar10(), every=20, validation=0).main()
