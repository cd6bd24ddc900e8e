"""SupCon, with labels, on scenes. `python recipes/scenes_supcon.py [SEED ...]` writes
scenes_supcon.json.
"""

from dataclasses import replace

from recipe import Recipe

from tellapart.training.presets import supcon_scenes

if __name__ == "__main__":
    config = replace(supcon_scenes(), width=32, epochs=16)
    Recipe("scenes_supcon", "supcon", "scenes:fashion-mnist", config).main()
