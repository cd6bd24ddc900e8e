"""8,121 pictures of Open Clip Art (Debian's openclipart-png) in 22 categories.

python scripts/prepare_lite0.py lite0.safetensors
python recipes/clipart_adapt.py lite0.safetensors
"""

from photographs import Recipe

if __name__ == "__main__":
    Recipe(
        "clipart_adapt", "images:/usr/share/openclipart/png", epochs=1.0, scratch_epochs=10.0
    ).main()
