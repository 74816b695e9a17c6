// @ts-check
// Exercises and cells that run in the page. Until a reader shows interest nothing is fetched;
// then the editor, and Python in a worker, come from the book itself, and are kept.
(() => {
  "use strict";

  const settings = document.getElementById("bn-inpage")?.textContent;
  if (!settings || !window.Worker || !window.WebAssembly) return;
  const book = JSON.parse(settings);
  const root = new URL(document.documentElement.dataset.content_root ?? "./", location.href);
  const at = (/** @type {string} */ path) => new URL(`_static/${path}`, root).href;
  const refusal = location.protocol === "file:" ? book.unserved : book.runtime ? "" : book.missing;

  // ---- answers, kept in this browser alone: {name: {code, solved}} ------------------

  const STORE = "bnlib-answers";
  /** @typedef {{code?: string, solved?: boolean}} Answer */
  /** @type {Record<string, Answer>} */
  let answers = {};
  let stored = true; // false without a store or room in it: kept until the page is left

  function recall() {
    try {
      if (stored) answers = { ...JSON.parse(localStorage.getItem(STORE) ?? "{}") };
    } catch {}
  }

  /** @param {string} name @param {Answer} change */
  function keep(name, change) {
    recall(); // another tab may have written
    answers[name] = { ...answers[name], ...change };
    try {
      localStorage.setItem(STORE, JSON.stringify(answers));
    } catch {
      stored = false;
    }
    if ("solved" in change) showProgress();
  }

  function showProgress() {
    document.querySelectorAll(".bn-solved").forEach((mark) => mark.remove());
    for (const [chapter, names] of Object.entries(book.exercises)) {
      const solved = names.filter((/** @type {string} */ name) => answers[name]?.solved).length;
      const href = chapter === book.page ? "#" : `${chapter}.html`;
      if (!solved) continue;
      for (const link of document.querySelectorAll(`.bd-links a[href$="${href}"]`)) {
        const mark = add(link, "span", "bn-solved", ` ✓ ${solved}/${names.length}`);
        add(mark, "span", "bn-unseen", " exercises solved");
      }
    }
  }

  // ---- Python -----------------------------------------------------------------------

  const LIMIT = 30; // seconds
  const SILENCE = 120; // seconds without a word from Python while it starts
  /** @type {Promise<Worker> | null} */
  let worker = null;
  /** @type {((why: string) => void) | null} */
  let stop = null; // ends what runs now

  /** A script of the book, from this browser's own store where that has it.
   * @param {string} path */
  async function script(path) {
    const shelf = await self.caches?.open(book.runtime.cache).catch(() => null);
    let answer = await shelf?.match(at(path));
    if (!answer) {
      answer = await fetch(at(path), { cache: "no-cache" });
      if (!answer.ok) throw Error(answer.statusText);
      shelf?.put(at(path), answer.clone()).catch(() => {}); // a full disk
    }
    return URL.createObjectURL(new Blob([await answer.text()], { type: "text/javascript" }));
  }

  async function start() {
    const it = new Worker(await script("inpage/worker.js"));
    it.onmessage = ({ data }) => data.failed && forget();
    const places = { base: at("inpage/"), pyodide: at("vendor/pyodide/") };
    it.postMessage({ runtime: { ...book.runtime, ...places } });
    return it;
  }

  const wake = () => (worker ??= start());

  /** The next press starts Python anew. */
  function forget() {
    worker?.then((it) => it.terminate()).catch(() => {});
    worker = null;
  }

  /** Start Python while the reader still looks. @param {Element} element what at */
  function warm(element) {
    const look = () => void (refusal || wake().catch(forget));
    for (const sign of ["pointerenter", "focusin"])
      element.addEventListener(sign, look, { once: true });
    return look;
  }

  /** Ask Python. Resolves to its answer, rejects with words for the reader.
   * @param {object} request @param {Element} result @returns {Promise<any>} */
  function ask(request, result) {
    return new Promise((resolve, reject) => {
      if (refusal || stop) return reject(Error(refusal || book.busy));
      result.innerHTML = book.starting;
      let [clock, begun] = [0, false];
      const done = () => (clearTimeout(clock), (stop = null));
      stop = (why) => {
        forget();
        reject((done(), Error(why)));
      };
      const fail = (why = "") => stop?.(`${begun ? book.ended : book.unstarted} ${why}`);
      const late = () => stop?.(begun ? book.late.replace("{}", LIMIT) : book.unstarted);
      clock = setTimeout(late, 1000 * SILENCE);
      const listen = (/** @type {MessageEvent} */ { data }) => {
        if (data.failed) return fail(data.failed);
        if (data.answer) return resolve((done(), data.answer));
        const bar = result.querySelector("progress");
        if (bar && data.fetched) bar.value = data.fetched;
        if ((begun = data.started ?? begun)) result.textContent = "Running…";
        clearTimeout(clock);
        clock = setTimeout(late, 1000 * (begun ? LIMIT : SILENCE));
      };
      const send = (/** @type {Worker} */ it) => {
        it.onerror = ({ message }) => fail(message);
        it.onmessage = listen;
        it.postMessage({ request });
      };
      wake().then(send, () => fail());
    });
  }

  // ---- cells ------------------------------------------------------------------------

  /** @param {Element} parent @param {string} tag @param {string} name @param {string} [text] */
  function add(parent, tag, name, text = "") {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    parent.append(element);
    return element;
  }

  /** @param {Element} parent @param {string} text @param {() => void} press @param {string} [name] */
  function button(parent, text, press, name = text.toLowerCase().replaceAll(" ", "-")) {
    const it = add(parent, "button", `bn-${name}`, text);
    it.setAttribute("type", "button");
    // While its cell runs a button rests, and keeps the focus.
    it.addEventListener("click", () => (text === "Stop" || !it.closest(".bn-busy")) && press());
    return it;
  }

  /** The last button of a bar: when it goes, no other slips under the finger.
   * @param {Element} bar @param {HTMLElement} next what has the focus then */
  function addStop(bar, next) {
    button(bar, "Stop", () => (stop?.("Stopped."), next.focus()));
  }

  /** Give a cell an editor, which opens when the code is pressed, and a result.
   * @param {Element} cell @param {Element} bar @param {string} label @param {string} code
   * @param {(code: string) => void} changed */
  function workplace(cell, bar, label, code, changed) {
    const input = /** @type {HTMLElement} */ (cell.querySelector(".cell_input"));
    const pre = /** @type {HTMLElement} */ (input.querySelector("pre"));
    const result = add(cell, "div", "bn-result");
    input.after(bar);
    (cell.querySelector(".cell_output") ?? bar).after(result);
    if (code !== clean(pre)) pre.textContent = code;
    warm(bar);
    /** @type {any} */
    let editor = null;

    const place = {
      enter: () => {},
      code: () => code,
      /** @param {string} html */
      say: (html) => (result.innerHTML = html),
      /** A reader works here from now on. */
      claim() {
        result.setAttribute("role", "status");
        cell.setAttribute("role", "group");
        cell.setAttribute("aria-label", label);
        cell.classList.add("bn-workplace");
      },
      /** @param {string} text */
      write(text) {
        changed((code = text));
        editor ? editor.write(text) : (pre.textContent = text);
        place.clear();
      },
      clear() {
        place.say("");
        cell.classList.remove("bn-ran");
      },
      async open(focus = true) {
        if (refusal) return (result.textContent = refusal);
        const { edit } = await script("vendor/editor/editor.js")
          .then((address) => import(address))
          .catch(() => ({}));
        if (!edit) result.textContent = book.uneditable;
        if (!edit || editor) return;
        const write = (/** @type {string} */ text) => changed((code = text));
        cell.classList.add("bn-open");
        editor = edit(input, code, label, write, () => place.enter());
        /** @type {HTMLElement} */ (input.firstElementChild).hidden = true;
        if (focus) editor.focus();
      },
      /** The code as it was, without an editor. */
      close() {
        editor?.close();
        editor = null;
        /** @type {HTMLElement} */ (input.firstElementChild).hidden = false;
        cell.classList.remove("bn-open", "bn-workplace");
      },
      /** Show what Python makes of a request. @param {object} request */
      async send(request) {
        cell.classList.add("bn-busy");
        cell.classList.toggle("bn-ran", !refusal);
        place.say("");
        const answer = await ask(request, result).catch((error) => ({ failed: error.message }));
        cell.classList.remove("bn-busy");
        place.say(answer.shown ?? "");
        if (answer.printed) result.prepend(add(result, "pre", "bn-printed", answer.printed));
        if (answer.failed) add(result, "p", "bn-failed", answer.failed);
        if (!result.firstChild) place.say("It ran, and printed nothing.");
        editor?.mark(answer.line ?? null);
        return answer;
      },
    };
    return place;
  }

  const clean = (/** @type {Element} */ pre) => (pre.textContent ?? "").trimEnd();
  const cells = [...document.querySelectorAll(".cell .cell_input pre")];
  const printed = cells.map(clean); // as the book has them
  const codes = [...printed]; // as they stand now

  /** @param {Element} cell @param {string} name @param {string} stub */
  function exercise(cell, name, stub) {
    const label = `Your answer: ${name}`;
    const bar = add(cell, "div", "bn-bar");
    const write = (/** @type {string} */ code) => keep(name, { code });
    const place = workplace(cell, bar, label, answers[name]?.code ?? stub, write);
    const check = async () => {
      const answer = await place.send({ do: "check", name, code: place.code() });
      if (answer.passed) keep(name, { solved: true });
    };
    if (!Object.keys(places).length) addFiles(cell);
    places[name] = place;
    place.claim();
    place.enter = check;
    cell.querySelector("pre")?.addEventListener("click", () => place.open());
    const first = button(bar, "Check", check);
    button(bar, "Run", () => place.send({ do: "run_answer", code: place.code() }));
    button(bar, "Edit", () => place.open());
    button(bar, "Reset", () => {
      place.write(stub);
      keep(name, { code: undefined, solved: false });
    });
    addStop(bar, first);
    const look = warm(cell);
    const seen = (/** @type {IntersectionObserverEntry[]} */ [entry]) =>
      entry?.isIntersecting && look();
    if (!(/** @type {any} */ (navigator).connection?.saveData))
      new IntersectionObserver(seen).observe(cell);
  }

  // ---- answers as a notebook: to hand in, and to go on from elsewhere ------------------

  const CALL = /\n+check\("(\w+)", \w+\)\s*$/;
  const known = Object.values(book.exercises).flat();
  /** @type {Record<string, {write: (text: string) => void}>} */
  const places = {};

  /** All answers, of every page, as `python -m bnlib grade` takes them. */
  function notebook() {
    recall();
    const own = known.filter((name) => answers[name]?.code);
    const texts = own.map((name) => `${answers[name]?.code?.trimEnd()}\n\n\ncheck("${name}", ${name})`);
    const made = ["import numpy as np\n\nfrom bnlib import check", ...texts].map((source, n) => ({
      ...{ cell_type: "code", id: `answer-${n}`, metadata: {}, execution_count: null },
      ...{ outputs: [], source },
    }));
    const kernelspec = { display_name: "Python 3", language: "python", name: "python3" };
    return JSON.stringify({ cells: made, metadata: { kernelspec }, nbformat: 4, nbformat_minor: 5 });
  }

  /** Take over the answers of a notebook, saved here or a workbook; how many there are.
   * @param {string} text */
  function take(text) {
    let count = 0;
    for (const { source } of JSON.parse(text).cells) {
      const whole = [source].flat().join("");
      const name = whole.match(CALL)?.[1] ?? "";
      const begun = !whole.includes("raise NotImplementedError"); // a stub replaces no answer
      if (!begun || !known.includes(name)) continue;
      const code = whole.replace(CALL, "\n");
      places[name] ? places[name].write(code) : keep(name, { code });
      count += 1;
    }
    return count;
  }

  /** @param {Element} cell above which it stands */
  function addFiles(cell) {
    const bar = add(/** @type {Element} */ (cell.parentElement), "div", "bn-bar");
    cell.before(bar);
    button(bar, "Save my answers", () => {
      const href = URL.createObjectURL(new Blob([notebook()], { type: "application/x-ipynb+json" }));
      Object.assign(document.createElement("a"), { href, download: "answers.ipynb" }).click();
    });
    button(bar, "Load answers", () => file.click());
    const said = add(bar, "span", "bn-loaded");
    said.setAttribute("role", "status");
    const file = /** @type {HTMLInputElement} */ (add(bar, "input", "bn-file"));
    Object.assign(file, { type: "file", accept: ".ipynb", hidden: true });
    file.addEventListener("change", async () => {
      const count = await file.files?.[0]?.text().then(take).catch(() => -1);
      said.textContent = count === -1 ? book.unread : book.loaded.replace("{}", count);
      file.value = ""; // the same one may be chosen again
    });
  }

  // ---- the other cells: what is edited flows into those below -------------------------

  /** @typedef {{number: number, run: () => Promise<any>, refresh: () => void}} Tried */
  /** @type {Tried[]} */
  const tried = [];
  const refresh = () => tried.forEach((cell) => cell.refresh());

  /** @param {number} number */
  async function runFrom(number) {
    for (const cell of tried)
      if (cell.number >= number && (await cell.run()).failed) break;
  }

  /** @param {Element} cell @param {number} number */
  function tryCell(cell, number) {
    const seam = add(cell, "div", "bn-seam");
    const change = (/** @type {string} */ code) => ((codes[number] = code), refresh());
    const place = workplace(cell, seam, "A cell of this page", printed[number], change);
    const before = printed.slice(0, number + 1);
    let ran = before; // what made the output that is seen
    const run = async () => {
      const asked = codes.slice(0, number + 1);
      const answer = await place.send({ do: "try_cell", cells: asked, number });
      if (!answer.failed) ran = asked;
      refresh();
      return answer;
    };
    const same = (/** @type {string[]} */ some, end = number) =>
      some.slice(0, end).every((code, n) => code === codes[n]);

    button(seam, "edited above: run again", run, "again");
    const offer = button(seam, "Try it", () => {
      place.claim();
      place.open(false); // on a phone a keyboard would cover the result
      if (!refusal) cell.classList.add("bn-open");
      first.focus();
      run();
    });
    const first = button(seam, "Run", run);
    button(seam, "Run all below", () => runFrom(number));
    button(seam, "Reset", () => {
      place.write(printed[number]);
      place.close();
      ran = before;
      offer.focus();
    });
    addStop(seam, first);
    place.enter = run;
    tried.push({
      number,
      run,
      refresh() {
        const mended = ran !== before && !same(ran, number + 1) && same(before, number + 1);
        if (mended) ran = (place.clear(), before); // what the book shows is right again
        const seen = ran !== before || cell.querySelector(".cell_output");
        cell.classList.toggle("bn-stale", !!seen && !same(ran));
      },
    });
  }

  recall();
  cells.forEach((pre, number) => {
    const cell = pre.closest(".cell");
    const [call, name] = printed[number].match(CALL) ?? [];
    const open = cell?.matches(".tag_exercise") && !cell.closest(".solution");
    if (cell && open && name) exercise(cell, name, printed[number].replace(call ?? "", ""));
    else if (cell?.matches(".bn-try")) tryCell(cell, number);
  });
  showProgress();
  for (const event of ["storage", "pageshow"]) // another tab or page has solved one
    window.addEventListener(event, () => (recall(), showProgress()));
})();
