"""SupCon, with labels, on scenes. `python recipes/scenes_supcon.py [SEED ...]` writes scenes_supcon.json."""

from recipe import Recipe

from tellapart.presets import supcon_scenes

if __name__ == "__main__":
    Recipe("scenes_supcon", "supcon", "scenes:fashion-mnist", supcon_scenes()).main()
