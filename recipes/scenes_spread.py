"""Spread on scenes:fashion-mnist. `python recipes/scenes_spread.py [SEED ...]` writes
scenes_spread.json.
"""

from dataclasses import replace

from recipe import Recipe

from tellapart.training.presets import spread_scenes

if __name__ == "__main__":
    config = replace(spread_scenes(), width=32, epochs=12)
    Recipe("scenes_spread", "spread", "scenes:fashion-mnist", config).main()
