"""Files whose content is not what their names say."""

from __future__ import annotations

import gzip
import struct
import zipfile
from io import BytesIO

from tests.support.hostile.file import MIB, HostileFile, deflate_zeros
from tests.support.hostile.png import png

SECRET = "/etc/passwd"
"""A file that no decoder may open on behalf of another."""

SVG = f"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY x SYSTEM "file://{SECRET}">]>
<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>&c;&x;</text>
<image href="file://{SECRET}" width="9" height="9"/></svg>"""
POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{ } loop\nshowpage\n"
CONCAT = f"ffconcat version 1.0\nfile '{SECRET}'\nfile 'concat:{SECRET}|{SECRET}'\n"
PLAYLIST = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{SECRET}\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"
MANIFEST = f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file://{SECRET}</BaseURL></MPD>'


def zip_bomb() -> bytes:
    """A zip file of ten members that inflate to a gigabyte each, and are the same bytes."""
    data = deflate_zeros(1024 * MIB)[2:-4]
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", data)
    stored = file.getvalue()
    directory = stored.index(b"PK\1\2")
    entry, end = stored[directory:-22], stored[-22:]
    entry = entry[:10] + struct.pack("<H", zipfile.ZIP_DEFLATED) + entry[12:]
    end = end[:8] + struct.pack("<HHI", 10, 10, 10 * len(entry)) + end[16:]
    return stored[:directory] + entry * 10 + end


def executable() -> bytes:
    return b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + bytes(200)


def icon() -> bytes:
    """An icon, a format that is not opened, whose image is a PNG that claims to be large."""
    inner = png(60_000, 60_000)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def polyglot() -> bytes:
    """A GIF header, followed by a PDF and a page of HTML with a script."""
    return b"GIF89a/*" + b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(while(1);)>>>>endobj\n<script>*/</script>"


def text(content: str) -> bytes:
    return content.encode()


FILES = (
    HostileFile("svg.png", "parser", "error", lambda: text(SVG)),
    HostileFile("svg-compressed.png", "memory", "error", lambda: gzip.compress(text(SVG))),
    HostileFile("postscript.png", "time", "error", lambda: text(POSTSCRIPT)),
    HostileFile(
        "postscript-dos.jpg", "time", "error", lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 900) + bytes(900)
    ),
    HostileFile("concat.mp4", "parser", "error", lambda: text(CONCAT), as_video=True),
    HostileFile("playlist.mp4", "parser", "error", lambda: text(PLAYLIST), as_video=True),
    HostileFile("manifest.mp4", "parser", "error", lambda: text(MANIFEST), as_video=True),
    HostileFile("sequence-%03d.mp4", "parser", "error", lambda: png(8, 8, 8), as_video=True),
    HostileFile("zip-bomb.pdf", "memory", "error", zip_bomb),
    HostileFile("zip-bomb.png", "memory", "error", zip_bomb),
    HostileFile("zip-bomb.mp4", "memory", "error", zip_bomb, as_video=True),
    HostileFile("executable.mp4", "parser", "error", executable, as_video=True),
    HostileFile("icon.png", "memory", "error", icon),
    HostileFile("polyglot.gif", "parser", "error", polyglot),
    HostileFile("polyglot.pdf", "parser", "error", polyglot),
    HostileFile("empty.png", "parser", "error", bytes),
    HostileFile("empty.pdf", "parser", "error", bytes),
    HostileFile("empty.mp4", "parser", "error", bytes, as_video=True),
    HostileFile("zeros.jpg", "parser", "error", lambda: bytes(MIB)),
    HostileFile("zeros.mp4", "parser", "error", lambda: bytes(MIB), as_video=True),
)
