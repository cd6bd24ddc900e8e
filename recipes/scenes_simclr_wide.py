"""SimCLR on scenes, twice as wide. `python recipes/scenes_simclr_wide.py [SEED ...]` writes scenes_simclr_wide.json."""

from dataclasses import replace

from recipe import Recipe

from tellapart.presets import simclr_scenes

if __name__ == "__main__":
    config = replace(simclr_scenes(), width=32, epochs=20)  # a quarter of an hour of two cores
    Recipe("scenes_simclr_wide", "simclr", "scenes:fashion-mnist", config).main()
