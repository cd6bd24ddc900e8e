"""SimCLR on scenes:fashion-mnist. `python recipes/scenes_simclr.py [SEED ...]` writes scenes_simclr.json."""

from recipe import Recipe

from tellapart.presets import simclr_scenes

if __name__ == "__main__":
    Recipe("scenes_simclr", "simclr", "scenes:fashion-mnist", simclr_scenes()).main()
