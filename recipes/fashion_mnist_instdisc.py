"""InstDisc on Fashion-MNIST. `python recipes/fashion_mnist_instdisc.py [SEED ...]` writes the .json
beside it.
"""

from recipe import Recipe

from tellapart.training.presets import instdisc_fashion_mnist

if __name__ == "__main__":
    Recipe("fashion_mnist_instdisc", "instdisc", "fashion-mnist", instdisc_fashion_mnist()).main()
