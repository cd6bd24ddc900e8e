"""InstDisc on scenes:fashion-mnist. `python recipes/scenes_instdisc.py [SEED ...]` writes
scenes_instdisc.json.
"""

from dataclasses import replace

from recipe import Recipe

from tellapart.training.presets import instdisc_scenes

if __name__ == "__main__":
    config = replace(instdisc_scenes(), width=32, epochs=12)
    Recipe("scenes_instdisc", "instdisc", "scenes:fashion-mnist", config).main()
