"""A PDF as Chromium writes it, made into a book: page numbers, less weight.

The tree that tells a screen reader what is what fills most of Chromium's file. It is
made of objects in plain text: they are read, and all but the streams compressed.
"""

import re
import zlib
from itertools import pairwise

PACKED = 200  # objects to a compressed stream
NUMBER = re.compile(rb"(\d+) 0 R")


def read(data):
    """{number: body} of every object in a file, and the last dictionary of it."""
    start = int(re.search(rb"startxref\s+(\d+)\s+%%EOF\s*$", data)[1])
    table, trailer = data[start:].split(b"trailer", 1)
    rows = re.findall(rb"^(\d{10}) \d{5} ([nf])", table, re.M)
    places = {n: int(at) for n, (at, used) in enumerate(rows) if used == b"n"}
    ends = dict(pairwise([*sorted(places.values()), start]))
    objects = {}
    for number, at in places.items():
        body = data[at : ends[at]].split(b"obj", 1)[1]
        objects[number] = body[: body.rindex(b"endobj")].strip()
    return objects, trailer[: trailer.index(b"startxref")].strip()


def entry(body, name):
    """The number of the object that a dictionary names."""
    return int(re.search(rb"/%s (\d+) 0 R" % name, body)[1])


def pages(objects, number):
    """The pages below a node of the tree of pages, in their order."""
    kids = re.search(rb"/Kids \[([^\]]*)\]", objects[number])
    if not kids:
        return [number]
    return [p for kid in NUMBER.findall(kids[1]) for p in pages(objects, int(kid))]


def places(data):
    """{anchor: (page object, place on it)}, and {page object: its number from 1}."""
    objects, trailer = read(data)
    root = objects[entry(trailer, b"Root")]
    order = pages(objects, entry(root, b"Pages"))
    named = re.findall(
        rb"/(\S+) \[(\d+) 0 R (/XYZ [^\]]*)\]", objects[entry(root, b"Dests")]
    )
    found = {
        re.sub(rb"#(..)", lambda code: bytes([int(code[1], 16)]), name).decode(): (
            int(page),
            place,
        )
        for name, page, place in named
    }
    return found, {page: n for n, page in enumerate(order, 1)}


def page_numbers(data):
    """{anchor: the number of its page}."""
    found, order = places(data)
    return {name: order[page] for name, (page, _) in found.items()}


def stream(about, content):
    packed = zlib.compress(content, 9)
    head = b"<<%s /Filter /FlateDecode /Length %d>>" % (about, len(packed))
    return head + b"\nstream\n" + packed + b"\nendstream"


def write(objects, trailer):
    """A file of these objects; those that are no streams are compressed together."""
    data, where = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), {}
    plain = [n for n, body in objects.items() if not body.endswith(b"endstream")]
    last = max(objects)
    for start in range(0, len(plain), PACKED):
        group, last = plain[start : start + PACKED], last + 1
        head, bodies = b"", b""
        for place, number in enumerate(group):
            head += b"%d %d " % (number, len(bodies))
            bodies += objects[number] + b"\n"
            where[number] = 2, last, place
        about = b"/Type /ObjStm /N %d /First %d" % (len(group), len(head))
        objects = objects | {last: stream(about, head + bodies)}
    for number, body in objects.items():
        if number not in where:
            where[number] = 1, len(data), 0
            data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(data), last + 2
    where[last + 1] = 1, start, 0
    rows = (where.get(n, (0, 0, 65535)) for n in range(size))
    table = b"".join(
        bytes([kind]) + a.to_bytes(4, "big") + b.to_bytes(2, "big")
        for kind, a, b in rows
    )
    kept = b" ".join(re.findall(rb"/(?:Root|Info) \d+ 0 R", trailer))
    about = b"/Type /XRef /Size %d /W [1 4 2] %s" % (size, kept)
    data += b"%d 0 obj\n%s\nendobj\n" % (last + 1, stream(about, table))
    return bytes(data + b"startxref\n%d\n%%%%EOF\n" % start)


def bind(data):
    """The same book, smaller, which opens with its bookmarks."""
    objects, trailer = read(data)
    root = entry(trailer, b"Root")
    objects[root] = objects[root][:-2] + b" /PageMode /UseOutlines>>"
    return write(objects, trailer)
