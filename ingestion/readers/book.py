"""EPUB: a page per document of the spine, which is the order of reading; each is read as the HTML it is.

Rules kept here: only what the package names and holds is read; scripts, pictures and remote parts are not. A book with
rights management is not opened. Format: EPUB 3.3, OCF and package document.
"""

import posixpath
from typing import Final
from urllib.parse import unquote

from ingestion.readers import Reading, TextBuilder, UnreadableError, package, plain
from ingestion.readers.kinds import EPUB

CONTAINER: Final = "META-INF/container.xml"
ENCRYPTION: Final = "META-INF/encryption.xml"
ROOTFILE: Final = "{urn:oasis:names:tc:opendocument:xmlns:container}rootfile"
OPF: Final = "{http://www.idpf.org/2007/opf}"
XMLENC: Final = "{http://www.w3.org/2001/04/xmlenc#}"
FONTS: Final = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""How fonts are obfuscated: no bar to the text."""


def read(data: bytes) -> Reading:
    """Read a book. Raises `UnreadableError`: `encrypted_file`, `broken_file`, `empty_text`."""
    with package.measured(data) as archive:
        if ENCRYPTION in archive.NameToInfo:
            for _, element in package.events(archive, ENCRYPTION, ends=(XMLENC + "EncryptionMethod",)):
                if element.get("Algorithm") not in FONTS:
                    raise UnreadableError("encrypted_file", "book")
        roots = [str(each.get("full-path")) for _, each in package.events(archive, CONTAINER, ends=(ROOTFILE,))]
        if not roots:
            raise UnreadableError("broken_file", "book")
        folder, manifest, spine = posixpath.dirname(roots[0]), {}, []
        for _, element in package.events(archive, roots[0], ends=(OPF + "item", OPF + "itemref")):
            if element.tag == OPF + "item":
                manifest[element.get("id")] = str(element.get("href") or "")
            else:
                spine.append(element.get("idref"))
        builder = TextBuilder()
        for reference in dict.fromkeys(spine):
            name = posixpath.normpath(posixpath.join(folder, unquote(manifest.get(reference, "").partition("#")[0])))
            if name in archive.NameToInfo:
                plain.html(builder, plain.decode(package.part(archive, name)))
                builder.end_page()
    return builder.reading(EPUB)
