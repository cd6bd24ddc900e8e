"""Which file endings are read as which kind of data, and what to do about common other ones."""

from __future__ import annotations

from collections.abc import Collection

IMAGES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pfm",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jpf",
        ".j2c",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    ]
)
AUDIO = frozenset(
    [
        ".wav",
        ".wave",
        ".bwf",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
        ".voc",
        ".sph",
        ".nist",
    ]
)
SERIES = frozenset({".npy", ".csv"})
TEXT = frozenset({".txt", ".tsv"})
KINDS: dict[str, Collection[str]] = {
    "images": IMAGES,
    "audio": AUDIO,
    "series": SERIES,
    "text": TEXT,
}

# Files that hold a kind of data in a form that is not read, and the remedy.
_DRAWN = "drawings of lines, not images of pixels; render them to PNG"
_RAW = "raw data of a camera; develop them to JPEG, PNG or TIFF"
_EDITED = "files of an image editor; save them as PNG or TIFF"
_MEDICAL = "medical or scientific images; convert them to TIFF or .npy"
_CODEC = "sounds in a coding that is not read; convert them: ffmpeg -i IN OUT.flac"
VIDEO = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
_VIDEO = "videos; give the video itself, or a folder of videos alone, to --data"
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVES = (*TARS, ".zip")
_ARCHIVE = "archives; give the archive itself, or a folder of archives alone, to --data"
FOREIGN = {
    "images": {
        **dict.fromkeys((".svg", ".svgz", ".eps", ".ps", ".ai", ".pdf", ".wmf", ".emf"), _DRAWN),
        **dict.fromkeys(
            (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef"), _RAW
        ),
        **dict.fromkeys((".psd", ".xcf", ".kra", ".tga", ".pcx", ".ico", ".icns"), _EDITED),
        **dict.fromkeys(
            (".dcm", ".dicom", ".nii", ".mha", ".nrrd", ".fits", ".fit", ".exr", ".hdr"), _MEDICAL
        ),
    },
    "audio": dict.fromkeys(
        (".m4a", ".aac", ".wma", ".amr", ".ac3", ".ape", ".wv", ".mka", ".mid", ".midi"), _CODEC
    ),
}
REMEDIES = {ending: text for known in FOREIGN.values() for ending, text in known.items()}
REMEDIES |= dict.fromkeys(VIDEO, _VIDEO)
REMEDIES |= dict.fromkeys(ARCHIVES, _ARCHIVE)
COMPANIONS = {"audio": frozenset({".lab"})}  # read beside the files of a kind


def is_archive(name: str) -> bool:
    """Whether a file name ends as an archive that is read."""
    return name.lower().endswith(ARCHIVES)
