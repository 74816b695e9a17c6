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

// Figures that move (tools/movables.py): the first frame stands in the page, the parts of all
// frames in a script beside it. A slider chooses, and says its value and what is seen.
(() => {
  "use strict";

  function wake(figure) {
    const sliders = [...figure.querySelectorAll(".bn-sliders input")];
    const frame = figure.querySelector(".bn-stage > [role=img]");
    const { said, rows, parts } = JSON.parse(figure.querySelector("script").textContent);

    function show() {
      const chosen = sliders.reduce((n, s) => n * (+s.max + 1) + +s.value, 0);
      frame.innerHTML = rows[chosen].map((part) => parts[part]).join("");
      frame.setAttribute("aria-label", said[chosen]);
      for (const slider of sliders) {
        const value = JSON.parse(slider.dataset.shows)[slider.value];
        slider.nextElementSibling.textContent = value;
        slider.setAttribute("aria-valuetext", `${value}: ${said[chosen]}`);
      }
    }

    sliders.forEach((slider) => slider.addEventListener("input", show));
  }

  addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".bn-movable:not([data-live]):has(.bn-stage)").forEach(wake),
  );
})();

// The picture on the first page (tools/opening.py): batch normalization, computed here.
(() => {
  "use strict";

  const EPS = 1e-5;
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const deviation = (values) => Math.sqrt(mean(values.map((v) => (v - mean(values)) ** 2)));
  const minus = (text) => text.replace("-", "−");

  function passage(x, gamma, beta) {
    const centre = mean(x);
    const std = Math.sqrt(deviation(x) ** 2 + EPS);
    const xhat = x.map((v) => (v - centre) / std);
    return [x, xhat, xhat.map((v) => gamma * v + beta)];
  }

  function wake(figure) {
    const { batch, scales, rows } = JSON.parse(figure.dataset.numbers);
    const sliders = [...figure.querySelectorAll("input")];
    const find = (kind) => [...figure.querySelectorAll(`svg .bn-${kind}`)];
    const lines = find("example").reverse();
    const [bars, numbers] = [find("spread"), find("number")];
    const pixel = (v, row) => (scales[row][0] + scales[row][1] * v).toFixed(2);

    function bar(values, row) {
      const at = [-1, 0, 1].map((d) => pixel(mean(values) + d * deviation(values), row));
      const y = rows[row] - 13;
      return `M${at[0]} ${y - 4}v8M${at[0]} ${y}H${at[2]}M${at[2]} ${y - 4}v8M${at[1]} ${y - 6}v12`;
    }

    function show() {
      const shown = sliders.map((slider) => JSON.parse(slider.dataset.shows)[slider.value]);
      const [size, gamma, beta] = shown.map((text) => Number(text.replace("−", "-")));
      const values = passage(batch.slice(0, size), gamma, beta);
      lines.forEach((line, i) => {
        const stops = values.map((row, n) => `${pixel(row[i], n)} ${rows[n]}`);
        line.setAttribute("d", i < size ? `M${stops.join("L")}` : "");
      });
      bars.forEach((path, row) => path.setAttribute("d", bar(values[row], row)));
      const said = values.map((row, n) => (n ? minus(row[0].toFixed(2)) : `${row[0].toFixed(1)} %`));
      numbers.forEach((text, row) => (text.textContent = said[row]));
      const sentence = `In a batch of ${size}, the marked digit with ${said[0]} of ink is ${said[1]}, then ${said[2]}.`;
      figure.querySelector("svg").setAttribute("aria-label", sentence);
      sliders.forEach((slider, n) => {
        slider.nextElementSibling.textContent = shown[n];
        slider.setAttribute("aria-valuetext", `${shown[n]}: ${sentence}`);
      });
    }

    sliders.forEach((slider) => slider.addEventListener("input", show));
  }

  addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".bn-opening-figure").forEach(wake),
  );
})();

// Boxes that scroll sideways say so: the edge behind which there is more fades
// (bnlib.css), and they are reached by keyboard.
(() => {
  "use strict";

  const BOXES =
    ".bd-article :is(pre, mjx-container, .pst-scrollable-table-container, .text_html, .text_html table, .bn-drawing)";

  function mark(box) {
    const rest = box.scrollWidth - box.clientWidth;
    const scrolls = rest > 4 && getComputedStyle(box).overflowX === "auto";
    box.classList.toggle("bn-more-left", scrolls && box.scrollLeft > 4);
    box.classList.toggle("bn-more-right", scrolls && box.scrollLeft < rest - 4);
    if (!scrolls) return;
    box.classList.add("bn-scrolls");
    box.tabIndex = 0;
  }

  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    const boxes = [...document.querySelectorAll(BOXES)];
    const sizes = new ResizeObserver((entries) => entries.forEach((e) => mark(e.target)));
    boxes.forEach((box) => sizes.observe(box));
    // The letters of formulas may come late, and narrower than those that stood in for them.
    document.fonts.addEventListener("loadingdone", () => {
      boxes.forEach((box) => box.classList.remove("bn-scrolls"));
      boxes.forEach(mark);
    });
    document.addEventListener("scroll", (e) => e.target.matches?.(BOXES) && mark(e.target), true);
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
    const doc = await page(url);
    const target = find(doc, url);
    if (!target || target.querySelector(".bn-movable")) return [];
    const clones = excerpt(target).filter(Boolean).map((e) => copy(e, url));
    // Formulas that were not set while the book was built need the MathJax of this page.
    const isRaw = (e) => e.matches(".math") && !e.querySelector("mjx-container");
    const raw = doc !== document && clones.some((c) => [c, ...c.querySelectorAll(".math")].some(isRaw));
    return raw && !window.MathJax?.typesetPromise ? [] : clones;
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
    if (window.MathJax?.typesetPromise) {
      await MathJax.typesetPromise([box]);
      if (owner === link) place(link);
    }
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
