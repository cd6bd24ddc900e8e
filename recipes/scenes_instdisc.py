"""InstDisc on scenes:fashion-mnist. `python recipes/scenes_instdisc.py [SEED ...]` writes scenes_instdisc.json."""

from recipe import Recipe

from tellapart.presets import instdisc_scenes

if __name__ == "__main__":
    Recipe("scenes_instdisc", "instdisc", "scenes:fashion-mnist", instdisc_scenes()).main()
