// Paper is white, whatever the screen is, and folds nothing that was written to be read.
(() => {
  "use strict";

  const page = document.documentElement.dataset;
  let onScreen = page.theme;
  let folded = [];

  addEventListener("beforeprint", () => {
    onScreen = page.theme;
    page.theme = "light";
    folded = [...document.querySelectorAll(".bn-hints > details:not([open])")];
    folded.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => {
    page.theme = onScreen;
    folded.forEach((fold) => (fold.open = false));
  });
})();

// Boxes that scroll sideways say so: the edge behind which there is more fades
// (bnlib.css), and they are reached by keyboard.
(() => {
  "use strict";

  const BOXES =
    ".bd-article :is(pre, mjx-container, .pst-scrollable-table-container, .text_html, .text_html table, .bn-drawing)";

  // All are measured before one is marked: else every mark lays out the whole page anew.
  function mark(boxes) {
    const found = boxes.map((box) => {
      const rest = box.scrollWidth - box.clientWidth;
      const scrolls = rest > 4 && getComputedStyle(box).overflowX === "auto";
      return [box, scrolls, scrolls && box.scrollLeft > 4, scrolls && box.scrollLeft < rest - 4];
    });
    for (const [box, scrolls, left, right] of found) {
      box.classList.toggle("bn-more-left", left);
      box.classList.toggle("bn-more-right", right);
      if (!scrolls) continue;
      box.classList.add("bn-scrolls");
      box.tabIndex = 0;
    }
  }

  const moved = new Set();
  function onScroll({ target }) {
    if (!target.matches?.(BOXES)) return;
    if (!moved.size) requestAnimationFrame(() => { mark([...moved]); moved.clear(); });
    moved.add(target);
  }

  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise; // where formulas are set in the page
    const boxes = [...document.querySelectorAll(BOXES)];
    const sizes = new ResizeObserver((entries) => mark(entries.map((e) => e.target)));
    boxes.forEach((box) => sizes.observe(box));
    // The letters of formulas may come late, and narrower than those that stood in for them.
    document.fonts.addEventListener("loadingdone", () => {
      boxes.forEach((box) => box.classList.remove("bn-scrolls"));
      mark(boxes);
    });
    document.addEventListener("scroll", onScroll, true);
  });
})();

// Previews. A link to an equation, figure, theorem, section or citation shows what it points to
// while the pointer rests on it or the keyboard is on it. Escape closes the preview; the
// pointer may enter it. Other pages are fetched from the book itself, when first needed.
(() => {
  "use strict";

  const DELAY = 250; // ms, so that a pointer passing by opens nothing
  const LINKS = ".bd-article a[href]:not(.headerlink, .sd-stretched-link, .image-reference)";
  const BLOCKS =
    "div.math, figure, div.proof, div.admonition, div.citation, aside.footnote, " +
    "div.literal-block-wrapper, table, dt, section";
  const NOISE = "script, button, .headerlink, .copybtn, mjx-assistive-mml";

  const here = new URL(location.href);
  const pages = new Map();
  let box = null; // the preview shown
  let owner = null; // its link
  let timer = 0;

  function page(url) {
    const path = url.pathname;
    if (path === here.pathname) return Promise.resolve(document);
    if (!pages.has(path)) {
      const text = fetch(path).then((answer) => (answer.ok ? answer.text() : ""));
      pages.set(
        path,
        text.then((html) => new DOMParser().parseFromString(html, "text/html")),
      );
    }
    return pages.get(path);
  }

  // The element to show for a link's target, or null where there is nothing to show.
  function find(doc, url) {
    const id = decodeURIComponent(url.hash.slice(1));
    if (!id) return doc.querySelector(".bd-article section");
    let target = doc.getElementById(id);
    // A second label of the same thing is an empty <span> before or inside it.
    if (target?.matches("span:empty")) {
      const next = target.nextElementSibling;
      target = next?.matches(BLOCKS) ? next : target;
    }
    return target?.closest(BLOCKS) ?? null;
  }

  // A section is shown by its heading and first paragraph, a term with its definition.
  function excerpt(target) {
    if (target.matches("section")) {
      const wanted = ":scope > :is(h1, h2, h3, h4), :scope > p";
      return [...target.querySelectorAll(wanted)].slice(0, 2);
    }
    if (target.matches("dt")) return [target, target.nextElementSibling];
    return [target];
  }

  function copy(element, base) {
    const clone = document.importNode(element, true);
    clone.querySelectorAll(NOISE).forEach((node) => node.remove());
    for (const node of [clone, ...clone.querySelectorAll("*")]) {
      node.removeAttribute("id");
      for (const name of ["src", "href"]) {
        const value = node.getAttribute(name);
        if (value) node.setAttribute(name, new URL(value, base).href);
      }
    }
    return clone;
  }

  async function content(url) {
    const target = find(await page(url), url);
    if (!target || target.querySelector(".bn-movable")) return [];
    const clones = excerpt(target).filter(Boolean).map((e) => copy(e, url));
    // Formulas that were not set while the book was built are set in their own page alone.
    const isRaw = (e) => e.matches(".math") && !e.querySelector("mjx-container");
    return clones.some((c) => [c, ...c.querySelectorAll(".math")].some(isRaw)) ? [] : clones;
  }

  function place(link) {
    const { left, top, bottom } = link.getBoundingClientRect();
    const gap = 6;
    const below = innerHeight - bottom > box.offsetHeight + gap || top < innerHeight / 2;
    const x = Math.min(left, document.documentElement.clientWidth - box.offsetWidth - 12);
    box.style.left = `${Math.max(12, x)}px`;
    box.style.top = `${below ? bottom + gap : top - gap - box.offsetHeight}px`;
  }

  function hide() {
    clearTimeout(timer);
    box?.remove();
    owner?.removeAttribute("aria-describedby");
    box = owner = null;
  }

  function hideSoon() {
    clearTimeout(timer);
    timer = setTimeout(hide, DELAY);
  }

  async function show(link) {
    const clones = await content(new URL(link.href)).catch(() => []); // offline: no preview
    const wanted = link.matches(":hover, :focus-visible");
    if (!clones.length || !wanted) return;
    hide();
    box = document.createElement("div");
    box.className = "bn-preview";
    box.id = "bn-preview";
    box.role = "tooltip";
    box.append(...clones);
    box.addEventListener("mouseenter", () => clearTimeout(timer));
    box.addEventListener("mouseleave", hideSoon);
    owner = link;
    owner.setAttribute("aria-describedby", box.id);
    document.body.append(box);
    place(link);
  }

  function showSoon(link) {
    clearTimeout(timer);
    if (link !== owner) timer = setTimeout(show, DELAY, link);
  }

  function internal(link) {
    const url = new URL(link.href);
    return url.origin === here.origin && /(\.html|\/)$/.test(url.pathname);
  }

  addEventListener("DOMContentLoaded", () => {
    for (const link of document.querySelectorAll(LINKS)) {
      if (!internal(link)) continue;
      link.addEventListener("mouseenter", () => showSoon(link));
      link.addEventListener("mouseleave", hideSoon);
      link.addEventListener("focus", () => link.matches(":focus-visible") && showSoon(link));
      link.addEventListener("blur", hideSoon);
      link.addEventListener("click", hide);
    }
  });
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("scroll", (event) => box && !box.contains(event.target) && hide(), true);
})();

// Tables of claims (book_extension.py). A cell knows its column, for phones (bnlib.css). Above
// the claims ledger (chapter 22), one button per verdict, #verdict-false presses it, and a
// box that makes one list of it, verdict by verdict. Without this, all rows are shown.
(() => {
  "use strict";

  const ORDER = ["false", "disputed", "not", "partly", "reproduced"];
  const chip = (row) => row.querySelector(".bn-verdict");
  const verdict = (row) => chip(row)?.dataset.verdict;

  function nameColumns(table) {
    const names = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    for (const { cells } of table.tBodies[0].rows)
      [...cells].slice(1).forEach((cell, n) => {
        const name = names[n + 1];
        cell.dataset.head = /measured|verdict/.test(name) ? "" : `${name}: `;
      });
  }

  addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".bn-claims").forEach(nameColumns);
    const tables = [...document.querySelectorAll(".bn-ledger")];
    if (!tables.length) return;
    const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);

    const group = document.createElement("fieldset");
    group.className = "bn-verdicts";
    group.innerHTML = "<legend>Show the claims that are</legend>";
    const status = document.createElement("output");

    const homes = rows.map((row) => row.parentNode);
    let kind = "";

    function show() {
      const shown = rows.filter((row) => !kind || verdict(row) === kind);
      rows.forEach((row) => (row.hidden = !shown.includes(row)));
      status.textContent = `${shown.length} of ${rows.length} claims`;
      for (const table of tables)
        table.closest("section").hidden = ![...table.tBodies[0].rows].some((row) => !row.hidden);
    }

    function choose(wanted) {
      kind = wanted;
      show();
    }

    // All rows in the first table, which has no heading of its own then; or each at home.
    function arrange(asOneList) {
      const place = (row) => ORDER.indexOf(verdict(row));
      if (asOneList) homes[0].append(...[...rows].sort((a, b) => place(a) - place(b)));
      else rows.forEach((row, n) => homes[n].append(row));
      tables[0].closest("section").classList.toggle("bn-one-list", asOneList);
      show();
    }

    function offer(kind, face, count) {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), {
        type: "radio",
        name: "bn-verdict",
        value: kind,
        checked: !kind,
      });
      radio.addEventListener("change", () => choose(kind));
      label.append(radio, face, ` ${count}`);
      group.append(label);
    }

    function follow() {
      const [, kind] = location.hash.match(/^#verdict-(\w+)$/) ?? [];
      const radio = group.querySelector(`[value="${kind}"]`);
      if (!radio) return;
      radio.checked = true;
      choose(kind);
      group.scrollIntoView();
    }

    offer("", "of any verdict", rows.length);
    for (const each of ORDER) {
      const those = rows.filter((row) => verdict(row) === each);
      if (those.length) offer(each, chip(those[0]).cloneNode(true), those.length);
    }
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox" });
    box.addEventListener("change", () => arrange(box.checked));
    label.append(box, "sorted by verdict");
    group.append(label, status);
    tables[0].closest("section").before(group);
    choose("");
    follow();
    addEventListener("hashchange", follow);
  });
})();
