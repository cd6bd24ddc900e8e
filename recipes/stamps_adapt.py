"""802 stamps of Tux Paint (Debian's tuxpaint-stamps-default) in 17 categories.

python scripts/prepare_lite0.py lite0.safetensors
python recipes/stamps_adapt.py lite0.safetensors
"""

from photographs import Recipe

if __name__ == "__main__":
    Recipe("stamps_adapt", "images:/usr/share/tuxpaint/stamps").main()
