"""Spread on scenes:fashion-mnist. `python recipes/scenes_spread.py [SEED ...]` writes scenes_spread.json."""

from recipe import Recipe

from tellapart.presets import spread_scenes

if __name__ == "__main__":
    Recipe("scenes_spread", "spread", "scenes:fashion-mnist", spread_scenes()).main()
