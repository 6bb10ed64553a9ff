"""Static files with content-hashed names, compressed once when they are collected."""

from __future__ import annotations

from typing import Any

import brotli
from servestatic.compress import Compressor
from servestatic.storage import CompressedManifestStaticFilesStorage

# Of 11. The highest takes 10 to 20 times as long for about a tenth fewer bytes; the first start waits for this.
BROTLI_QUALITY = 9


class QuickCompressor(Compressor):
    # Source maps are for debuggers; compressing their megabytes would take most of the time.
    SKIP_COMPRESS_EXTENSIONS = (*Compressor.SKIP_COMPRESS_EXTENSIONS, "map")

    @staticmethod
    def compress_brotli(data: bytes) -> bytes:
        return bytes(brotli.compress(data, quality=BROTLI_QUALITY))


# Our own modules import each other by their hashed names too; what packages bring is not written for that.
OWN_MODULES = ("chat/*.js", "console/*.js", "site/*.js")


class StaticStorage(CompressedManifestStaticFilesStorage):
    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        *(
            (glob, CompressedManifestStaticFilesStorage._js_module_import_aggregation_patterns[1])
            for glob in OWN_MODULES
        ),
    )

    def create_compressor(self, **options: Any) -> Compressor:
        return QuickCompressor(**options)
