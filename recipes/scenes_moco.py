"""MoCo on scenes:fashion-mnist. `python recipes/scenes_moco.py [SEED ...]` writes
scenes_moco.json.
"""

from dataclasses import replace

from recipe import Recipe

from tellapart.training.presets import moco_scenes

if __name__ == "__main__":
    config = replace(moco_scenes(), width=32, epochs=10)
    Recipe("scenes_moco", "moco", "scenes:fashion-mnist", config).main()
