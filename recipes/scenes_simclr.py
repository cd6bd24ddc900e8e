"""SimCLR on scenes:fashion-mnist. `python recipes/scenes_simclr.py [SEED ...]` writes
scenes_simclr.json.
"""

from dataclasses import replace

from recipe import Recipe

from tellapart.training.presets import simclr_scenes

if __name__ == "__main__":
    config = replace(simclr_scenes(), width=32, epochs=20)
    Recipe("scenes_simclr", "simclr", "scenes:fashion-mnist", config).main()
