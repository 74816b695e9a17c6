// Figures that move (tools/movables.py, tools/opening.py): sliders that choose a frame of the
// notebook's, the picture on the first page, and figures that are computed here (`live` of
// bnlib.figures.movable). A figure is redrawn for the room it has: letters keep their size.
(() => {
  "use strict";

  const EDGE = 18;
  const EPS = 1e-5;
  const minus = (value) => String(value).replace("-", "−");
  const mean = (v) => v.reduce((a, b) => a + b, 0) / v.length;
  const deviation = (v, m = mean(v)) => Math.sqrt(mean(v.map((each) => (each - m) ** 2)));
  const clip = (v, lo, hi) => Math.min(hi, Math.max(lo, v));
  const two = (v) => minus(v.toFixed(2).replace(/^-0\.00$/, "0.00"));

  function make(into, tag, { text, ...attributes } = {}) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return into.appendChild(node);
  }

  // Sliders of a figure, which has a function that draws what they choose and returns it in words.
  function follow(figure, draw) {
    const sliders = [...figure.querySelectorAll(".bn-sliders input")];
    function show() {
      const shown = sliders.map((slider) => JSON.parse(slider.dataset.shows)[slider.value]);
      const said = draw(shown.map(meant), sliders);
      sliders.forEach((slider, n) => {
        slider.nextElementSibling.textContent = shown[n];
        slider.setAttribute("aria-valuetext", `${shown[n]}: ${said}`);
      });
    }
    sliders.forEach((slider) => slider.addEventListener("input", show));
    return show;
  }

  // What a slider shows, as a number if it is one.
  function meant(shown) {
    const number = Number(shown.replace("−", "-").replace(",", ""));
    return Number.isNaN(number) ? shown : number;
  }

  // ---- frames: the first stands in the page, the parts of all in a script beside it --------

  function wakeFrames(figure) {
    const frame = figure.querySelector(".bn-stage > [role=img]");
    const { said, rows, parts } = JSON.parse(figure.querySelector("script").textContent);
    follow(figure, (_, sliders) => {
      const chosen = sliders.reduce((n, s) => n * (+s.max + 1) + +s.value, 0);
      frame.innerHTML = rows[chosen].map((part) => parts[part]).join("");
      frame.setAttribute("aria-label", said[chosen]);
      return said[chosen];
    });
  }

  // ---- the picture on the first page: batch normalization, computed here --------------------

  function wakeOpening(figure) {
    const { batch, scales, rows } = JSON.parse(figure.dataset.numbers);
    const find = (kind) => [...figure.querySelectorAll(`svg .bn-${kind}`)];
    const lines = find("example").reverse();
    const [bars, numbers] = [find("spread"), find("number")];
    const pixel = (v, row) => (scales[row][0] + scales[row][1] * v).toFixed(2);

    function bar(values, row) {
      const at = [-1, 0, 1].map((d) => pixel(mean(values) + d * deviation(values), row));
      const y = rows[row] - 13;
      return `M${at[0]} ${y - 4}v8M${at[0]} ${y}H${at[2]}M${at[2]} ${y - 4}v8M${at[1]} ${y - 6}v12`;
    }

    follow(figure, ([size, gamma, beta]) => {
      const x = batch.slice(0, size);
      const { z } = normalized(x);
      const values = [x, z, z.map((v) => gamma * v + beta)];
      lines.forEach((line, i) => {
        const stops = values.map((row, n) => `${pixel(row[i], n)} ${rows[n]}`);
        line.setAttribute("d", i < size ? `M${stops.join("L")}` : "");
      });
      bars.forEach((path, row) => path.setAttribute("d", bar(values[row], row)));
      const said = values.map(([v], n) => (n ? minus(v.toFixed(2)) : `${v.toFixed(1)} %`));
      numbers.forEach((text, row) => (text.textContent = said[row]));
      const sentence = `In a batch of ${size}, the marked digit with ${said[0]} of ink is ${said[1]}, then ${said[2]}.`;
      figure.querySelector("svg").setAttribute("aria-label", sentence);
      return sentence;
    });
  }

  // ---- examples of one feature on a line: dots to be dragged, or moved by arrow keys ---------

  function normalized(x) {
    const [m, std] = [mean(x), Math.sqrt(deviation(x) ** 2 + EPS)];
    return { std, z: x.map((v) => (v - m) / std) };
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
        const high = (v) => line - clip(v * 250, -105, 140);
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

  function wakeDots(figure) {
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
      x[i] = clip(Math.round(to * 10) / 10, lo, hi);
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

  // ---- with sliders: finer than the frames they take the place of, each position computed --
  const blend = (share, from, to) => `color-mix(in oklab, var(${to}) ${(100 * share).toFixed(0)}%, var(${from}))`;
  const diverging = (v) => blend(Math.min(1, Math.abs(v) / 2.5), "--bn-bg", v < 0 ? "--bn-blue" : "--bn-mark");

  const write = (svg, x, y, text, more = {}) => make(svg, "text", { x, y, text, ...more });
  const middle = { "text-anchor": "middle" };

  // A line with marks, its numbers below and its name below them.
  function scale(svg, x, y, width, [lo, hi], ticks, name) {
    const at = (v) => x + ((v - lo) / (hi - lo)) * width;
    make(svg, "path", { class: "bn-axis", d: `M${x} ${y}h${width}` });
    for (const tick of ticks) write(svg, at(tick), y + 20, minus(tick), middle);
    write(svg, x + width / 2, y + 40, name, { class: "bn-name", ...middle });
    return at;
  }

  // One unit in one microbatch: what r and d it asks for, what it gets, what comes out.
  const renorm = {
    height: (width) => (width < 560 ? 540 : 280),
    draw(svg, [step, shift, spread], width, { batch }) {
      const [rmax, dmax] = [clip((step - 5000) / 17500 + 1, 1, 3), clip((step - 5000) / 4000, 0, 5)];
      const x = batch.map((v) => shift + spread * v);
      const { std, z: xhat } = normalized(x);
      const [r, d] = [clip(std, 1 / rmax, rmax), clip(mean(x), -dmax, dmax)];
      const y = xhat.map((v) => r * v + d);

      const narrow = width < 560;
      const room = narrow ? width : width * 0.42;
      const at = scale(svg, 50, 226, room - 60, [-6, 6], [-5, 0, 5], "d, in running deviations");
      const high = (v) => 120 - (Math.log(clip(v, 0.05, 6)) / Math.log(6)) * 100;
      for (const [v, name] of [[1 / 3, "1/3"], [1, "1"], [3, "3"]])
        write(svg, 42, high(v) + 5, name, { "text-anchor": "end" });
      write(svg, 8, 16, "r", { class: "bn-name" });
      make(svg, "path", { class: "bn-axis", d: `M50 20V226` });
      const [left, top] = [at(-dmax), high(rmax)];
      const box = { x: left, y: top, width: Math.max(at(dmax) - left, 1), height: Math.max(high(1 / rmax) - top, 1) };
      make(svg, "rect", { class: "bn-box", ...box });
      make(svg, "path", { class: "bn-tie bn-marked", d: `M${at(mean(x))} ${high(std)}L${at(d)} ${high(r)}` });
      make(svg, "circle", { class: "bn-ring", cx: at(mean(x)), cy: high(std), r: 7 });
      make(svg, "circle", { class: "bn-dot bn-marked", cx: at(d), cy: high(r), r: 6 });

      const [start, down] = narrow ? [10, 262] : [room + 40, 0];
      const across = scale(svg, start, down + 226, width - start - 10, [-9, 9], [-8, -4, 0, 4, 8], "output");
      const rows = [["as in inference", x], ["batch renorm", y], ["batch norm", xhat]];
      const level = (n) => down + 60 + 66 * n;
      rows.forEach(([name], n) => write(svg, start, level(n) - 22, name, { class: "bn-name" }));
      x.forEach((_, i) => {
        const stops = rows.map(([, v], n) => `${across(clip(v[i], -9, 9))} ${level(n)}`);
        make(svg, "path", { class: "bn-tie", fill: "none", d: `M${stops.join("L")}` });
        rows.forEach(([, v], n) =>
          make(svg, "circle", { class: "bn-dot", cx: across(clip(v[i], -9, 9)), cy: level(n), r: 6 }),
        );
      });
      return `r is ${two(r)} of ${two(std)}, d is ${two(d)} of ${two(mean(x))}; out come ${y.map(two).join(", ")}`;
    },
  };

  // Whom a value of a batch of images is compared with, along which axes.
  const AXES = {
    batch: (n, c, h) => c,
    layer: (n) => n,
    instance: (n, c) => 4 * n + c,
    "group (two of them)": (n, c) => 2 * n + (c >> 1),
    RMS: (n) => n,
    "layer, at each position": (n, c, h) => 16 * n + h,
  };

  const axes = {
    height: (width) => (width < 560 ? 560 : 300),
    draw(svg, [name, image, channel, light], width, { scene }) {
      const set = AXES[name];
      const cells = scene.flatMap((pictures, n) =>
        pictures.flatMap((values, c) => values.map((v, h) => ({ n, c, h, v: v + light * (n === 2), set: set(n, c, h) }))),
      );
      const shares = (cell) => cells.filter((other) => other.set === cell.set).map((other) => other.v);
      const about = (values) => {
        const m = name === "RMS" ? 0 : mean(values);
        return [m, Math.sqrt(mean(values.map((v) => (v - m) ** 2)))];
      };
      const moments = new Map(cells.map((cell) => [cell.set, null]));
      for (const key of moments.keys()) moments.set(key, about(shares({ set: key })));
      const most = Math.max(...moments.keys()) || 1;
      const out = (cell) => (cell.v - moments.get(cell.set)[0]) / moments.get(cell.set)[1];
      const find = (n, c, h) => cells[64 * n + 16 * c + h];
      const chosen = find(image - 1, channel - 1, 0);

      // the cube: its front (image 1), its top and its right side
      const narrow = width < 560;
      const u = narrow ? Math.min(width / 7.2, 46) : Math.min((width * 0.44) / 6.4, 46);
      const [x0, y0] = [u * 0.75, u * 5.9];
      const spot = (right, up, back) => `${x0 + u * (right + 0.55 * back)} ${y0 - u * (up + 0.4 * back)}`;
      const side = (cell, ...corners) =>
        make(svg, "path", {
          class: cell.set === chosen.set ? "bn-cell bn-marked" : "bn-cell",
          d: `M${corners.map((corner) => spot(...corner)).join("L")}Z`,
          fill: blend(cell.set / most, "--bn-blue", "--bn-part"),
        });
      for (let c = 0; c < 4; c++) {
        for (let n = 2; n >= 0; n--) side(find(n, c, 0), [c, 4, n], [c + 1, 4, n], [c + 1, 4, n + 1], [c, 4, n + 1]);
        for (let h = 0; h < 4; h++) side(find(0, c, 4 * h), [c, 3 - h, 0], [c + 1, 3 - h, 0], [c + 1, 4 - h, 0], [c, 4 - h, 0]);
      }
      for (let n = 2; n >= 0; n--)
        for (let h = 0; h < 4; h++)
          side(find(n, 3, 4 * h), [4, 3 - h, n], [4, 3 - h, n + 1], [4, 4 - h, n + 1], [4, 4 - h, n]);
      write(svg, x0 + 2 * u, y0 + 20, "channel", { class: "bn-name", ...middle });
      write(svg, x0 + 5.2 * u, y0 - 0.1 * u, "image", { class: "bn-name" });
      write(svg, 0, 16, "who shares a mean", { class: "bn-name" });

      // what comes out
      const [left, top] = narrow ? [0, 290] : [width * 0.54, 0];
      const size = Math.min((width - left - 30) / 19, 15);
      write(svg, left, top + 16, "what comes out", { class: "bn-name" });
      for (const cell of cells) {
        const tile = { x: left + 30 + size * (5 * cell.c + (cell.h % 4)), y: top + 30 + size * (5 * cell.n + (cell.h >> 2)) };
        make(svg, "rect", { class: cell.set === chosen.set ? "bn-cell bn-marked" : "bn-cell", ...tile, width: size, height: size, fill: diverging(out(cell)) });
      }
      for (let n = 0; n < 3; n++) write(svg, left + 6, top + 36 + size * (5 * n + 2), n + 1);
      for (let c = 0; c < 4; c++) write(svg, left + 30 + size * (5 * c + 2), top + 50 + size * 14, c + 1, middle);
      const corner = { x: left + 30 + size * 5 * chosen.c, y: top + 30 + size * 5 * chosen.n, width: size, height: size };
      make(svg, "rect", { class: "bn-chosen", ...corner });
      const [m, std] = moments.get(chosen.set);
      return `${two(chosen.v)} is compared with ${shares(chosen).length} values, mean ${two(m)} and deviation ${two(std)}: out comes ${two(out(chosen))}`;
    },
  };

  // A cloud as it is, each feature by itself, and whitened by Newton-Schulz iterations.
  const product = ([a, b, c, d], [e, f, g, h]) => [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];

  function inverseRoot([a, b, c, d], iterations) {
    const trace = a + d;
    let [y, z] = [[a, b, c, d].map((v) => v / trace), [1, 0, 0, 1]];
    for (let k = 0; k < iterations; k++) {
      const m = product(z, y).map((v, n) => ((n % 3 ? 0 : 3) - v) / 2);
      [y, z] = [product(y, m), product(m, z)];
    }
    return z.map((v) => v / Math.sqrt(trace));
  }

  function covariance(points) {
    const [mx, my] = [0, 1].map((k) => mean(points.map((p) => p[k])));
    const of = (k, l) => mean(points.map((p) => (p[k] - (k ? my : mx)) * (p[l] - (l ? my : mx))));
    return [of(0, 0), of(0, 1), of(0, 1), of(1, 1)];
  }

  function spreads([a, b, , d]) {
    const [half, root] = [(a + d) / 2, Math.hypot((a - d) / 2, b)];
    return [half + root, half - root].map((v) => Math.sqrt(Math.max(v, 0)));
  }

  const whiten = {
    height: (width) => width / 3 + 30,
    draw(svg, [spread, correlation, iterations], width, { cloud }) {
      const low = Math.sqrt(1 - correlation ** 2);
      const points = cloud.map(([a, b]) => [spread * a, correlation * a + low * b]);
      const of = covariance(points);
      const alone = points.map(([a, b]) => [a / Math.sqrt(of[0]), b / Math.sqrt(of[3])]);
      const p = inverseRoot(of, iterations);
      const white = points.map(([a, b]) => [a * p[0] + b * p[1], a * p[2] + b * p[3]]);
      const panels = [["x", points], ["batch norm", alone], ["whitened", white]];
      const size = width / 3;
      panels.forEach(([name, each], n) => {
        const at = (v) => v * ((size - 16) / 8);
        const [x, y] = [size * (n + 0.5), 24 + size / 2];
        write(svg, x, 14, name, { class: "bn-name", ...middle });
        make(svg, "path", { class: "bn-axis", d: `M${x - size / 2 + 8} ${y}h${size - 16}M${x} ${y - size / 2 + 8}v${size - 16}` });
        for (const [a, b] of each.filter((p) => Math.hypot(...p) < 4))
          make(svg, "circle", { class: "bn-dot", cx: x + at(a), cy: y - at(b), r: 3 });
      });
      const said = panels.map(([name, each]) => `${name} ${spreads(covariance(each)).map(two).join(" and ")}`);
      return `Spread along and across: ${said.join(", ")}`;
    },
  };

  // Two hidden layers on a handful of points, trained here at every rate and every scale.
  function learn({ points, labels, weights }, norm, rate, size, steps) {
    const turned = (rows) => rows[0].map((_, j) => rows.map((row) => row[j]));
    const dot = (a, b) => {
      let sum = 0;
      for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
      return sum;
    };
    const mix = (rows, by) => {
      const sum = rows[0].map((v) => by[0] * v);
      for (let k = 1; k < rows.length; k++)
        for (let i = 0; i < sum.length; i++) sum[i] += by[k] * rows[k][i];
      return sum;
    };
    const inputs = turned(points); // a row has one unit's values for all points
    let w = weights.map((layer) => turned(layer).map((into) => into.map((v) => v * size)));
    const losses = [];
    let right = 0;
    for (let step = 0; step <= steps; step++) {
      const layers = [{ h: inputs }];
      for (const each of w.slice(0, -1)) {
        const z = each.map((into) => mix(layers.at(-1).h, into));
        const std = norm && z.map((v) => Math.sqrt(deviation(v) ** 2 + EPS));
        const normalize = (v, j, _, m = mean(v)) => v.map((a) => (a - m) / std[j]);
        const xhat = norm ? z.map(normalize) : z;
        layers.push({ std, xhat, h: xhat.map((v) => v.map((a) => Math.max(a, 0))) });
      }
      const margins = mix(layers.at(-1).h, w.at(-1)[0]).map((v, i) => v * labels[i]);
      losses.push(mean(margins.map((m) => (m > 30 ? 0 : m < -30 ? -m : Math.log1p(Math.exp(-m))))));
      right = mean(margins.map((m) => (m > 0 ? 1 : m < 0 ? 0 : 0.5))); // dead: a guess
      let d = [margins.map((m, i) => -labels[i] / (1 + Math.exp(clip(m, -500, 500))) / labels.length)];
      const moved = [];
      for (let k = w.length - 1; k >= 0; k--) {
        const { h, xhat, std } = layers[k];
        moved.unshift(w[k].map((into, j) => into.map((v, i) => v - rate * dot(h[i], d[j]))));
        if (!k) break;
        d = turned(w[k]).map((from, i) => mix(d, from).map((v, n) => (xhat[i][n] > 0 ? v : 0)));
        const pull = (v, j, _, m = mean(v), mz = dot(v, xhat[j]) / v.length) =>
          v.map((a, i) => (a - m - xhat[j][i] * mz) / std[j]);
        if (norm) d = d.map(pull);
      }
      w = moved;
    }
    return { losses, right };
  }

  const NAMES = ["without batch norm", "with batch norm"];
  const RATES = Array.from({ length: 13 }, (_, n) => n / 2 - 4);
  const SIZES = Array.from({ length: 9 }, (_, n) => n / 2 - 3);
  const trained = new Map();
  const train = (data, norm, rate, size) => {
    const key = `${norm} ${rate} ${size}`;
    if (!trained.has(key)) trained.set(key, learn(data, norm, 10 ** rate, 10 ** size, data.steps));
    return trained.get(key);
  };

  const map = {
    height: (width) => (width < 560 ? 520 : 330),
    draw(svg, [rate, size], width, data) {
      const room = width / 2 - 44;
      const cell = { width: room / RATES.length, height: 15 };
      const left = (n) => 40 + n * (width / 2);
      NAMES.forEach((name, n) => {
        write(svg, left(n) - 10, 14, name, { class: "bn-name" });
        RATES.forEach((r, i) =>
          SIZES.forEach((s, j) => {
            const known = trained.get(`${!!n} ${r} ${s}`);
            const fill = known ? blend(clip(2 * known.right - 1, 0, 1), "--bn-tint", "--bn-blue") : "none";
            const place = { x: left(n) - 10 + i * cell.width, y: 24 + (SIZES.length - 1 - j) * cell.height };
            make(svg, "rect", { class: known ? "bn-cell" : "bn-cell bn-empty", ...place, ...cell, fill });
          }),
        );
        const spot = { cx: left(n) - 10 + (2 * (rate + 4) + 0.5) * cell.width, cy: 24 + (8 - 2 * (size + 3) + 0.5) * cell.height };
        make(svg, "circle", { class: "bn-ring", ...spot, r: 7 });
        for (const r of [-4, -2, 0, 2])
          write(svg, left(n) - 10 + (2 * (r + 4) + 0.5) * cell.width, 180, minus(r), middle);
      });
      for (const s of [-3, -1, 1]) write(svg, 24, 29 + (8 - 2 * (s + 3) + 0.5) * cell.height, minus(s), { "text-anchor": "end" });
      write(svg, 0, 200, "across: log₁₀ rate; up: log₁₀ scale of the weights", { class: "bn-name" });
      const runs = [false, true].map((norm) => train(data, norm, rate, size));
      const top = 222;
      const tall = this.height(width) - top - 26;
      const high = (v) => top + clip(1 - (Math.log10(Math.max(v, 1e-9)) + 3) / 5, 0, 1) * tall;
      make(svg, "path", { class: "bn-axis", d: `M40 ${top}v${tall}H${width}` });
      for (const [v, text] of [[100, "100"], [1, "1"], [0.01, "0.01"]]) write(svg, 36, high(v) + 5, text, { "text-anchor": "end" });
      runs.forEach(({ losses }, n) => {
        const along = losses.map((v, k) => `${(40 + (k / data.steps) * (width - 40)).toFixed(1)} ${high(Number.isNaN(v) ? 1e9 : v).toFixed(1)}`);
        make(svg, "path", { class: n ? "bn-curve" : "bn-curve bn-marked", d: `M${along.join("L")}` });
      });
      write(svg, 46, top + 12, `loss, ${data.steps} steps (dashed: without batch norm)`, { class: "bn-name" });
      const said = runs.map(({ right }, n) => `${NAMES[n]} ${two(right)}`);
      return `Accuracy ${said.join(", ")}`;
    },
    // The rest of the map, a few networks at a time, as long as somebody looks.
    idle(data) {
      const rest = RATES.flatMap((r) => SIZES.flatMap((s) => [[true, r, s], [false, r, s]]));
      const next = rest.find((key) => !trained.has(key.join(" ")));
      if (next) train(data, ...next);
      return Boolean(next);
    },
  };

  const SLID = { renorm, axes, whiten, map };

  function wakeSliders(figure) {
    const { kind, ...data } = JSON.parse(figure.dataset.live);
    const { height, draw, idle } = SLID[kind];
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "bn-live");
    svg.setAttribute("role", "img");
    const words = Object.assign(document.createElement("p"), { className: "bn-said", ariaHidden: "true" });
    figure.querySelector(".bn-stage").replaceWith(svg, words);

    let width = 0;
    const show = follow(figure, (chosen) => {
      svg.setAttribute("viewBox", `0 0 ${width} ${height(width)}`);
      svg.replaceChildren();
      const said = draw.call(SLID[kind], svg, chosen, width, data);
      svg.setAttribute("aria-label", said);
      words.textContent = said;
      return said;
    });

    function fit() {
      if (svg.clientWidth === width) return;
      width = svg.clientWidth;
      show();
    }

    fit(); // at once, or what a link leads to would move away
    new ResizeObserver(fit).observe(svg);
    if (!idle) return;
    let seen = false;
    let painted = 0;
    svg.setAttribute("aria-busy", "true");
    function paint() {
      const until = performance.now() + 25;
      let more = true;
      while (more && performance.now() < until) more = idle(data);
      // To draw takes nearly as long as to train one: four times a second is enough.
      if (!more || until > painted + 250) {
        show();
        painted = performance.now();
      }
      svg.setAttribute("aria-busy", String(more));
      if (more && seen) setTimeout(paint, 10);
    }
    new IntersectionObserver(([entry]) => {
      if (entry.isIntersecting && !seen) setTimeout(paint, 100);
      seen = entry.isIntersecting;
    }).observe(svg);
  }

  function wake(figure) {
    const { live, numbers } = figure.dataset;
    if (numbers) return wakeOpening(figure);
    if (!live) return wakeFrames(figure);
    return JSON.parse(live).sliders ? wakeSliders(figure) : wakeDots(figure);
  }

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".bn-movable").forEach(wake));
})();
