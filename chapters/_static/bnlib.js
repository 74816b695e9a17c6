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

// Live figures. A figure that moves may say that it is computed here instead (`live` of
// bnlib.figures.movable): examples of one feature on a line, each a dot to be dragged, or reached
// with Tab and moved by arrow keys. It is redrawn for the room it has: letters keep their size.
(() => {
  "use strict";

  const EDGE = 18;
  const TAU = 1e-5; // eps
  const minus = (value) => String(value).replace("-", "−");
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  function make(into, tag, { text, ...attributes } = {}) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return into.appendChild(node);
  }

  function normalized(x) {
    const mean = sum(x) / x.length;
    const std = Math.sqrt(sum(x.map((v) => (v - mean) ** 2)) / x.length + TAU);
    return { mean, std, z: x.map((v) => (v - mean) / std) };
  }

  function axis(svg, y, at, ticks, name, width) {
    make(svg, "path", { class: "bn-axis", d: `M0 ${y}H${width}` });
    const label = { y: y + 30, "text-anchor": "middle" };
    for (const tick of ticks) make(svg, "text", { ...label, x: at(tick), text: minus(tick) });
    make(svg, "text", { class: "bn-name", x: 0, y: y + 52, text: name });
  }

  // What a batch does to an example that wants to leave it.
  const escape = {
    height: 262,
    line: 40,
    named: (i, marked) => (i === marked ? "the marked example" : `example ${i + 1}`),
    draw(svg, x, marked, { width }) {
      const most = Math.sqrt(x.length - 1);
      const [reach, y] = [most + 0.5, 184];
      const at = (z) => width / 2 + (z / reach) * (width / 2 - EDGE);
      axis(svg, y, at, [-2, -1, 0, 1, 2], "normalized x", width);
      for (const side of [-most, most])
        make(svg, "path", { class: "bn-limit", d: `M${at(side)} ${y - 34}v50` });
      make(svg, "text", { x: at(most), y: y - 42, "text-anchor": "middle", text: `√${x.length - 1}` });
      const ties = x.map(() => make(svg, "path", { class: "bn-tie" }));
      ties[marked].classList.add("bn-marked");
      const dots = x.map((_, i) => dot(svg, i === marked));
      const number = make(svg, "text", { class: "bn-value", x: width, y: y + 54, "text-anchor": "end" });
      return (from) => {
        const { z } = normalized(x);
        z.forEach((v, i) => {
          ties[i].setAttribute("d", `M${from(x[i])} 40L${at(v)} ${y}`);
          dots[i].setAttribute("transform", `translate(${at(v)} ${y})`);
        });
        number.textContent = `◆ ${minus(z[marked].toFixed(2))}`;
        return z.map((v) => `lands at ${minus(v.toFixed(2))}`);
      };
    },
  };

  // The gradient of one output with respect to every input: whoever is touched is pulled.
  const pull = {
    height: 330,
    line: 170,
    follows: true,
    named: (i) => `example ${i + 1}`,
    draw(svg, x, marked, { width, line }) {
      const bars = x.map(() => make(svg, "path", { class: "bn-bar" }));
      make(svg, "text", { class: "bn-name", x: 0, y: 18, text: "gradient of the pulled output" });
      const number = make(svg, "text", { class: "bn-value", x: width, y: 20, "text-anchor": "end" });
      return (from, pulled) => {
        const { std, z } = normalized(x);
        const slope = (j) => ((j === pulled) - (1 + z[pulled] * z[j]) / x.length) / std;
        const high = (v) => line - Math.max(-105, Math.min(140, v * 250));
        const slopes = x.map((_, j) => slope(j));
        slopes.forEach((v, j) => {
          bars[j].setAttribute("d", `M${from(x[j])} ${line}V${high(v)}`);
          bars[j].classList.toggle("bn-marked", j === pulled);
        });
        number.textContent = `◆ ${minus(slopes[pulled].toFixed(2))}`;
        const said = slopes.map((v) => minus(v.toFixed(2))).join(", ");
        return x.map((_, j) => (j === pulled ? `pulled: gradients ${said}` : ""));
      };
    },
  };

  function dot(into, isMarked) {
    if (!isMarked) return make(into, "circle", { class: "bn-dot", r: 7 });
    return make(into, "path", { class: "bn-dot bn-marked", d: "M0-10L10 0L0 10L-10 0Z" });
  }

  function wake(figure) {
    const { kind, batch, range } = JSON.parse(figure.dataset.live);
    const [lo, hi] = range;
    const { height, line, follows, named, draw } = { escape, pull }[kind];
    const x = [...batch];
    let marked = x.length - 1;
    let [width, moved] = [0, false];
    let grips, tell;

    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "bn-live");
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", "Examples of a batch: drag them, or move them by arrow keys");
    figure.replaceChildren(svg);

    const at = (v) => EDGE + ((v - lo) / (hi - lo)) * (width - 2 * EDGE);

    function update() {
      const said = tell(at, marked);
      grips.forEach((grip, i) => {
        grip.setAttribute("transform", `translate(${at(x[i])} ${line})`);
        grip.setAttribute("aria-valuenow", x[i]);
        grip.setAttribute("aria-valuetext", `${minus(x[i].toFixed(1))}, ${said[i]}`);
      });
    }

    function move(i, to) {
      moved = true;
      svg.querySelector(".bn-hint")?.remove();
      x[i] = Math.min(hi, Math.max(lo, Math.round(to * 10) / 10));
      update();
    }

    function mark(i) {
      if (!follows || i === marked) return;
      marked = i;
      grips.forEach((grip, j) => {
        grip.querySelector(".bn-dot").remove();
        dot(grip, j === marked);
      });
      update();
    }

    function grip(i) {
      const g = make(svg, "g", {
        role: "slider",
        tabindex: 0,
        "aria-label": named(i, marked),
        "aria-valuemin": lo,
        "aria-valuemax": hi,
      });
      make(g, "circle", { class: "bn-reach", r: 20 });
      if (i === marked && !moved) make(g, "path", { class: "bn-hint", d: "M-16-5l-5 5l5 5M16-5l5 5l-5 5" });
      dot(g, i === marked);
      g.addEventListener("focus", () => mark(i));
      g.addEventListener("pointerdown", (e) => (g.setPointerCapture(e.pointerId), g.focus()));
      g.addEventListener("pointermove", (e) => {
        const pixel = e.clientX - svg.getBoundingClientRect().left - EDGE;
        if (g.hasPointerCapture(e.pointerId)) move(i, lo + (pixel / (width - 2 * EDGE)) * (hi - lo));
      });
      g.addEventListener("keydown", (e) => {
        const by = { ArrowLeft: -0.1, ArrowDown: -0.1, ArrowRight: 0.1, ArrowUp: 0.1, PageDown: -1, PageUp: 1 };
        if (!by[e.key]) return;
        e.preventDefault();
        move(i, x[i] + by[e.key]);
      });
      return g;
    }

    function redraw() {
      const focused = grips?.indexOf(document.activeElement) ?? -1;
      width = svg.clientWidth;
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.replaceChildren();
      const few = width < 500 ? 2 : 1;
      const step = few * Math.max(1, Math.round((hi - lo) / 12));
      const ticks = [];
      for (let v = Math.ceil(lo / step) * step; v <= hi; v += step) ticks.push(v);
      axis(svg, line, at, follows ? [] : ticks, "", width);
      if (follows) for (const v of ticks) make(svg, "text", { x: at(v), y: height - 26, "text-anchor": "middle", text: minus(v) });
      make(svg, "text", { class: "bn-name", x: 0, y: follows ? height - 4 : 18, text: "x" });
      tell = draw(svg, x, marked, { width, line });
      grips = x.map((_, i) => grip(i));
      update();
      grips[focused]?.focus();
    }

    new ResizeObserver(() => svg.clientWidth !== width && redraw()).observe(svg);
    redraw();
  }

  addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".bn-movable[data-live]").forEach(wake),
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
// the claims ledger (chapter 11), one button per verdict; #verdict-false presses it. Without
// this, all rows are shown.
(() => {
  "use strict";

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

    function choose(kind) {
      const shown = rows.filter((row) => !kind || verdict(row) === kind);
      rows.forEach((row) => (row.hidden = !shown.includes(row)));
      status.textContent = `${shown.length} of ${rows.length} claims`;
      for (const table of tables)
        table.closest("section").hidden = ![...table.tBodies[0].rows].some((row) => !row.hidden);
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
    for (const kind of new Set(rows.map(verdict))) {
      const those = rows.filter((row) => verdict(row) === kind);
      offer(kind, chip(those[0]).cloneNode(true), those.length);
    }
    group.append(status);
    tables[0].closest("section").before(group);
    choose("");
    follow();
    addEventListener("hashchange", follow);
  });
})();
