// @ts-check
// Exercises and cells that run in the page. Before the first press nothing is fetched;
// then the editor, and Python in a worker, come from the book itself.
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
  /** @type {Worker | null} */
  let worker = null;
  /** @type {((why: string) => void) | null} */
  let stop = null; // ends what runs now

  /** Ask Python. Resolves to its answer, rejects with words for the reader.
   * @param {object} request @param {Element} result @returns {Promise<any>} */
  function ask(request, result) {
    return new Promise((resolve, reject) => {
      if (refusal || stop) return reject(Error(refusal || book.busy));
      worker ??= new Worker(at(`inpage/worker.js?${book.runtime.cache}`));
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
      worker.onerror = ({ message }) => fail(message);
      worker.onmessage = ({ data }) => {
        if (data.failed) return fail(data.failed);
        if (data.answer) return resolve((done(), data.answer));
        const bar = result.querySelector("progress");
        if (bar && data.fetched) bar.value = data.fetched;
        if ((begun = data.started ?? begun)) result.textContent = "Running…";
        clearTimeout(clock);
        clock = setTimeout(late, 1000 * (begun ? LIMIT : SILENCE));
      };
      const places = { base: at("inpage/"), pyodide: at("vendor/pyodide/") };
      worker.postMessage({ runtime: { ...book.runtime, ...places }, request });
    });
  }

  /** The next press starts Python anew. */
  function forget() {
    worker?.terminate();
    worker = null;
  }

  /** So that nothing is left of what ran; what another cell runs now goes on. */
  const renew = () => stop || forget();

  // ---- cells ------------------------------------------------------------------------

  /** @param {Element} parent @param {string} tag @param {string} name @param {string} [text] */
  function add(parent, tag, name, text = "") {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    parent.append(element);
    return element;
  }

  /** @param {Element} parent @param {string} text @param {() => void} press */
  function button(parent, text, press) {
    const it = add(parent, "button", `bn-${text.toLowerCase().replace(" ", "-")}`, text);
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

  /** Give a cell an editor, which opens when the code is pressed, a bar and a result.
   * @param {Element} cell @param {string} label @param {string} code
   * @param {(code: string) => void} changed */
  function workplace(cell, label, code, changed) {
    const input = /** @type {HTMLElement} */ (cell.querySelector(".cell_input"));
    const pre = /** @type {HTMLElement} */ (input.querySelector("pre"));
    const bar = add(cell, "div", "bn-bar");
    const result = add(cell, "div", "bn-result");
    input.after(bar, result);
    result.setAttribute("role", "status");
    cell.setAttribute("role", "group");
    cell.setAttribute("aria-label", label);
    cell.classList.add("bn-workplace");
    pre.addEventListener("click", () => place.open());
    if (code !== clean(pre)) pre.textContent = code;
    /** @type {any} */
    let editor = null;

    const place = {
      bar,
      enter: () => {},
      code: () => code,
      /** @param {string} html */
      say: (html) => (result.innerHTML = html),
      /** @param {string} text */
      write(text) {
        changed((code = text));
        editor ? editor.write(text) : (pre.textContent = text);
        place.say("");
        cell.classList.remove("bn-ran");
      },
      async open(focus = true) {
        if (refusal) return (result.textContent = refusal);
        const { edit } = await import(at("vendor/editor/editor.js")).catch(() => ({}));
        if (!edit) result.textContent = book.uneditable;
        if (!edit || editor) return;
        const write = (/** @type {string} */ text) => changed((code = text));
        cell.classList.add("bn-open");
        editor = edit(input, code, label, write, () => place.enter());
        /** @type {HTMLElement} */ (input.firstElementChild).hidden = true;
        if (focus) editor.focus();
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
  const sources = cells.map(clean);

  /** @param {Element} cell @param {string} name @param {string} stub */
  function exercise(cell, name, stub) {
    const label = `Your answer: ${name}`;
    const place = workplace(cell, label, answers[name]?.code ?? stub, (code) => keep(name, { code }));
    const check = async () => {
      const answer = await place.send({ do: "check", name, code: place.code() });
      if (answer.passed) keep(name, { solved: true });
    };
    place.enter = check;
    button(place.bar, "Edit", () => place.open());
    const first = button(place.bar, "Check", check);
    button(place.bar, "Run", () => place.send({ do: "run_answer", code: place.code() }));
    button(place.bar, "Reset", () => {
      renew();
      place.write(stub);
      keep(name, { code: undefined, solved: false });
    });
    button(place.bar, "Solution", () => {
      const mine = document.querySelector(`.solution[data-of="check-${name}"]`);
      if (mine instanceof HTMLDetailsElement) mine.open = true;
      mine?.scrollIntoView({ block: "nearest" });
      mine?.querySelector("summary")?.focus();
    });
    addStop(place.bar, first);
  }

  /** @param {Element} cell @param {number} number */
  function tryCell(cell, number) {
    const offer = button(cell.querySelector(".cell_input") ?? cell, "Try it", () => {
      offer.remove();
      const place = workplace(cell, "A cell of this page", sources[number], () => {});
      const run = () => place.send({ do: "try_cell", sources, number, code: place.code() });
      place.enter = run;
      const first = button(place.bar, "Run", run);
      button(place.bar, "Reset", () => (renew(), place.write(sources[number])));
      addStop(place.bar, first);
      place.open(false); // on a phone a keyboard would cover the result
      first.focus();
      run();
    });
  }

  recall();
  cells.forEach((pre, number) => {
    const cell = pre.closest(".cell");
    const [call, name] = sources[number].match(/\n+check\("(\w+)", \w+\)$/) ?? [];
    const open = cell?.matches(".tag_exercise") && !cell.closest(".solution");
    if (cell && open && name) exercise(cell, name, sources[number].replace(call ?? "", ""));
    else if (cell?.matches(".bn-try")) tryCell(cell, number);
  });
  showProgress();
  for (const event of ["storage", "pageshow"]) // another tab or page has solved one
    window.addEventListener(event, () => (recall(), showProgress()));
})();
