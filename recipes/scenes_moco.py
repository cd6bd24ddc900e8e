"""MoCo on scenes:fashion-mnist. `python recipes/scenes_moco.py [SEED ...]` writes scenes_moco.json."""

from recipe import Recipe

from tellapart.presets import moco_scenes

if __name__ == "__main__":
    Recipe("scenes_moco", "moco", "scenes:fashion-mnist", moco_scenes()).main()
