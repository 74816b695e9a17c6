"""Make the theme's icons as light as those that are shown.

The theme brings Font Awesome whole: a font of 156 kB and two thousand rules, of which
the pages show some thirty. What nothing names goes out of style sheet and fonts.
"""

import logging
import re
import shutil
from pathlib import Path

from fontTools import subset

SHEET = "styles/pydata-sphinx-theme.css"
NAME = re.compile(r"fa-[a-z0-9-]+")
RULE = re.compile(r"((?:\.fa-[\w-]+:before,?)+)\{content:\"\\[0-9a-f]+\"\}")
FONT = re.compile(
    r"url\((\.\./vendor/fontawesome/webfonts/)([\w-]+)\.woff2\) format\(\"woff2\"\),"
    r"url\([^)]*\) format\(\"truetype\"\)"
)


def read(paths):
    return [path.read_text("utf-8") for path in paths]


def named(out):
    """The icons that the pages name, and their scripts, which change some."""
    static = out / "_static"
    files = [*out.glob("*.html"), *(out / "chapters").rglob("*.html")]
    files += [*static.glob("*.js"), *static.glob("scripts/[!f]*.js")]
    texts = read([*files, *static.glob("*.css")])
    return {name for text in texts for name in NAME.findall(text)}


def drawn(sheets):
    """The letters of icons that style sheets put into the page."""
    escaped = {
        int(n, 16) for text in sheets for n in re.findall(r'"\\([ef]\w{3})"', text)
    }
    return escaped | {
        ord(c) for text in sheets for c in re.findall("[\ue000-\uf8ff]", text)
    }


def draw_only(letters, font, target):
    """Write a copy of a font with these letters alone; of all, if it has none."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    options = subset.Options(flavor="woff", layout_features=[], hinting=False)
    options.drop_tables += ["FFTM"]  # when it was made
    part = subset.Subsetter(options)
    whole = subset.load_font(str(font), options)
    if not letters & set(whole.getBestCmap()):
        shutil.copy(font, target.with_suffix(font.suffix))
        return
    part.populate(unicodes=letters)
    part.subset(whole)
    subset.save_font(whole, str(target), options)


def slim(app, exception):
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    sheet = out / "_static" / SHEET
    text = sheet.read_text("utf-8")
    if not FONT.search(text):  # done before, and not copied anew since
        return
    names = named(out)
    text = RULE.sub(
        lambda rule: rule[0] if names & {*NAME.findall(rule[1])} else "", text
    )
    others = [path for path in (out / "_static").rglob("*.css") if path != sheet]
    letters = drawn([text, *read(others)])
    for _, name in set(FONT.findall(text)):
        font = sheet.parent / "../vendor/fontawesome/webfonts" / f"{name}.ttf"
        draw_only(letters, font, font.with_suffix(".woff"))
    sheet.write_text(FONT.sub(r'url(\1\2.woff) format("woff")', text), "utf-8")


def setup(app):
    app.connect("build-finished", slim, priority=900)
