// The search: the theme's dialog, and the field on search.html, answer while one types.
// What answers (engine.js) and what it knows (index.js, written with the book) come when
// somebody begins, by script tags, which a page opened as a file may load too.
(() => {
  "use strict";

  const HERE = new URL(".", document.currentScript.src);
  const ROOT = new URL(document.documentElement.dataset.content_root, location.href);
  const PAUSE = 60; // ms between a key and an answer
  const EACH = 3; // results of a chapter in the dialog, which has room for MANY
  const MANY = 12;
  const WORDS = {
    hint: "A topic, a name of the library, the words of an error. ↑ and ↓ choose, Enter goes there.",
    nothing: "Nothing in the book has these words. Fewer may find more.",
    missing: "The index of this book did not come. Its contents are on the first page.",
  };
  const KINDS = { term: "glossary", exercise: "exercise", module: "code" };

  const load = (name) =>
    new Promise((done, failed) => {
      const script = Object.assign(document.createElement("script"), { src: new URL(name, HERE) });
      script.addEventListener("load", done);
      script.addEventListener("error", failed);
      document.head.append(script);
    });

  let opening = null;
  function open() {
    opening ??= Promise.all([load("engine.js"), load("index.js")]).then(() => bnSearch.open(bnSearchIndex));
    opening.catch(() => (opening = null)); // tried again with the next key
    return opening;
  }

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // What a title leaves unsaid: of bnlib.nn.GroupNorm, bnlib.nn.
  const kindOf = ({ kind, id, title }) => (kind === "name" ? id.slice(0, -title.length - 1) : KINDS[kind]);

  const marked = (parts) =>
    parts.map(([text, isMarked]) => (isMarked ? element("mark", {}, text) : document.createTextNode(text)));

  // What is shown of what was found: by chapter, in the order of each one's best.
  function choose(found, isAll) {
    const chapters = new Map();
    let shown = 0;
    for (const result of found) {
      const [, name] = result.page;
      if (!chapters.has(name)) chapters.set(name, []);
      if (shown === MANY && !isAll) break;
      if (chapters.get(name).length === EACH && !isAll) continue;
      chapters.get(name).push(result);
      shown += 1;
    }
    return [...chapters.values()].filter((results) => results.length);
  }

  // The sentence without the title that it may begin with.
  function said(index, result) {
    const parts = bnSearch.excerpt(index, result);
    return parts.map(([text]) => text).join("") === result.title ? [] : marked(parts);
  }

  function option(index, result, id) {
    const [page] = result.page;
    const href = new URL(["page", "module"].includes(result.kind) ? page : `${page}#${result.id}`, ROOT).href;
    const title = element("span", { class: "bn-found-title" }, ...marked(bnSearch.mark(index, result.title, result.wanted)));
    if (kindOf(result)) title.append(element("span", { class: "bn-found-kind" }, kindOf(result)));
    const sentence = element("span", { class: "bn-found-said" }, ...said(index, result));
    return element("a", { role: "option", id, href, tabindex: "-1", "aria-selected": "false" }, title, sentence);
  }

  // One field, made a combobox with a list of results below it.
  function attach(form, isAll) {
    const input = form.querySelector("input");
    const id = isAll ? "bn-all-found" : "bn-found";
    const list = element("div", { class: "bn-found", role: "listbox", id, "aria-label": "Results" });
    const status = element("p", { class: "bn-found-status", role: "status" });
    let [timer, chosen, asked, answering] = [0, -1, null, null];
    const options = () => [...list.querySelectorAll("[role=option]")];

    function mark(n) {
      const all = options();
      chosen = all.length ? (n + all.length) % all.length : -1;
      all.forEach((option, at) => option.setAttribute("aria-selected", at === chosen));
      if (chosen < 0) return input.removeAttribute("aria-activedescendant");
      input.setAttribute("aria-activedescendant", all[chosen].id);
      all[chosen].scrollIntoView({ block: "nearest" });
    }

    function show(index, question) {
      const found = bnSearch.find(index, question);
      const chapters = choose(found, isAll);
      let n = 0;
      const groups = chapters.map((results, at) => {
        const name = element("div", { class: "bn-found-chapter", id: `${id}-in-${at}`, role: "presentation" }, results[0].page[1]);
        const rows = results.map((result) => option(index, result, `${id}-${(n += 1)}`));
        return element("div", { role: "group", "aria-labelledby": name.id }, name, ...rows);
      });
      list.replaceChildren(...groups);
      input.setAttribute("aria-expanded", n > 0);
      status.replaceChildren(found.length ? `${n} of ${found.length} results` : question ? WORDS.nothing : WORDS.hint);
      if (n < found.length) {
        const href = new URL(`search.html?q=${encodeURIComponent(question)}`, ROOT).href;
        status.append(" · ", element("a", { href }, "all of them"));
      }
      list.scrollTop = 0;
      chosen = -1;
      input.removeAttribute("aria-activedescendant");
      if (!isAll) mark(0);
    }

    async function answer(question) {
      const index = await open().catch(() => null);
      if (question !== asked) return; // somebody typed on
      if (index) return show(index, question);
      asked = null;
      status.textContent = WORDS.missing;
    }

    function ask() {
      const question = input.value.trim();
      if (question !== asked) {
        asked = question;
        answering = answer(question);
      }
      return answering;
    }

    input.setAttribute("role", "combobox");
    input.setAttribute("aria-controls", id);
    input.setAttribute("aria-expanded", "false");
    input.setAttribute("aria-autocomplete", "list");
    input.setAttribute("enterkeyhint", "go");
    form.after(list, status);
    status.textContent = WORDS.hint;
    input.addEventListener("focus", () => open().catch(() => {}));
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(ask, PAUSE);
    });
    input.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || event.isComposing) return;
      event.preventDefault();
      mark(chosen < 0 && step < 0 ? -1 : chosen + step);
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      clearTimeout(timer);
      await ask();
      (options()[chosen] ?? options()[0])?.click();
    });
    list.addEventListener("click", () => form.closest("dialog")?.close());
    return { input, ask };
  }

  function start() {
    const dialog = document.getElementById("pst-search-dialog");
    attach(dialog.querySelector("form.bd-search"), false);
    addEventListener("keydown", (event) => {
      const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
      event.preventDefault();
      document.querySelector(".search-button__button")?.click();
    });
    const field = document.querySelector(".bd-search-container form.bd-search");
    if (!field) return;
    const { input, ask } = attach(field, true);
    input.value = new URLSearchParams(location.search).get("q") ?? "";
    if (input.value) ask();
    input.focus();
  }

  addEventListener("DOMContentLoaded", start);
})();
