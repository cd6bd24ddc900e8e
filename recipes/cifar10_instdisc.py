"""instdisc on CIFAR-10 with the authors' settings; 80.8 % kNN in the paper.

Wants a GPU and `cifar10`; it has not been run to the end here.

`python recipes/cifar10_instdisc.py [SEED ...]` writes cifar10_instdisc.json.
"""

from recipe import Recipe

from tellapart.training.presets import instdisc_cifar10

if __name__ == "__main__":
    Recipe(
        "cifar10_instdisc", "instdisc", "cifar10", instdisc_cifar10(), every=20, validation=0
    ).main()
