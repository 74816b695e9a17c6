// What a question finds in the book: no page, no network, so that node can test it.
//
// The index (tools/site_search.py) is a list of sections; all of it is in memory. What
// decides is the order of RANKS, words that mean the same, and words half typed; with
// these MiniSearch finds no better, and this is there without npm (tests/searches.txt).
var bnSearch = (() => {
  "use strict";

  // From last to first: what a question may be for an entry. "is" where it is the whole of its
  // name, else the name has all its words. A subject is from chapters/search.toml.
  const RANKS = [
    "", "text", "module", "exercise", "name", "subject", "term", "section", "is subject", "is term",
    "is section", "page", "is page", "code",
  ]; // prettier-ignore
  const WEIGHTS = { title: 6, about: 5, page: 1, text: 1 };
  const [SATURATION, LENGTH] = [1.2, 0.6]; // of BM25, as everybody sets them
  const ENOUGH = 5; // results with all the words: none with some of them is shown
  const SENTENCE = /(?<=[.!?:]["”)]*) +(?=["“(]*[\p{Lu}\p{Nd}])|\n/u;
  const COMPOUND = /\b\p{L}+\p{Lu}\p{Ll}[\p{L}\p{Nd}]*/gu; // TensorFlow, RMSNorm
  const STOP = new Set(
    ("a an and are as at be but by can do does for from has have how i in is it its me my no of on or " +
      "so that the their them there this to was we what when where which who why will with you your").split(" "),
  );

  // ---- words ---------------------------------------------------------------------------

  // BatchNorm2d, running_var and "group-norm" are words with something in between.
  const known = new Map();
  function split(word) {
    if (!known.has(word)) {
      const parted = word.replace(/(\p{Ll})(\p{Lu}\p{Ll})|(\p{Lu})(\p{Lu}\p{Ll})/gu, "$1$3 $2$4");
      known.set(word, parted.replace(/([a-zA-Z])(\dd)$/, "$1 $2").split(" "));
    }
    return known.get(word);
  }
  const pieces = (text) => (text.match(/[\p{L}\p{Nd}]+/gu) ?? []).flatMap(split);

  // Plurals and the endings of verbs go; what is left need not be a word.
  function cut(word) {
    if (word.length < 4 || /\d/.test(word)) return word;
    let short = word.replace(/ies$/, "y").replace(/(ch|sh|x|ss|z)es$/, "$1").replace(/([^suei])s$|(e)s$/, "$1$2");
    const bare = short.replace(/(ing|ed)$/, "");
    if (bare !== short && bare.length > 2 && /[aeiouy]/.test(bare)) short = bare.replace(/([^aeioulsz])\1$/, "$1");
    return short.length > 3 ? short.replace(/e$/, "") : short;
  }

  const stems = new Map();
  function stem(word) {
    const lower = word.toLowerCase();
    if (!stems.has(lower)) stems.set(lower, cut(lower));
    return stems.get(lower);
  }

  // Ways to say the same, by their first word: [[the others, the terms they stand for], ...],
  // the longest first. A way that is a common word is told from it by its capitals.
  function readSame(same) {
    const ways = new Map();
    for (const [meant, said] of Object.entries(same))
      for (const way of said) {
        const [first, ...others] = STOP.has(way.toLowerCase()) ? [way] : pieces(way).map(stem);
        if (!ways.has(first)) ways.set(first, []);
        ways.get(first).push([others, pieces(meant).map(stem)]);
      }
    for (const known of ways.values()) known.sort(([a], [b]) => b.length - a.length);
    return ways;
  }

  // What a text says, as terms.
  function terms(text, ways) {
    const found = [];
    const raw = pieces(text);
    for (let at = 0; at < raw.length; at += 1) {
      const known = ways.get(raw[at]) ?? ways.get(stem(raw[at])) ?? [];
      const way = known.find(([others]) => others.every((other, n) => raw[at + 1 + n] && stem(raw[at + 1 + n]) === other));
      if (way) {
        found.push(...way[1]);
        at += way[0].length;
      } else if (!STOP.has(raw[at].toLowerCase())) found.push(stem(raw[at]));
    }
    return found;
  }

  // ---- the index -----------------------------------------------------------------------

  function open({ pages, entries, same }) {
    const written = entries.map((entry) => entry.slice(3).join("\n")).join("\n");
    const compounds = [...new Set(written.match(COMPOUND))].map((word) => [pieces(word).join(" "), [word.toLowerCase()]]);
    const ways = readSame({ ...Object.fromEntries(compounds), ...same });
    const index = { ways, entries: [], postings: new Map(), forms: new Map(), mean: {} };
    for (const [page, kind, id, title, about, text] of entries) {
      const fields = { title, about: about.join("\n"), page: kind === "page" ? "" : pages[page][1], text };
      const entry = { page: pages[page], kind, id, title, text, terms: {} };
      for (const [name, said] of Object.entries(fields)) entry.terms[name] = terms(said, ways);
      entry.names = [title, ...about].map((phrase) => new Set(terms(phrase, ways)));
      index.entries.push(entry);
    }
    const forms = [...pieces(written), ...compounds.flatMap(([, said]) => said), ...Object.values(same).flat()];
    for (const form of new Set(forms.map((word) => word.toLowerCase()))) index.forms.set(form, terms(form, ways));
    for (const name of Object.keys(WEIGHTS)) {
      const sum = index.entries.reduce((sum, entry) => sum + entry.terms[name].length, 0);
      index.mean[name] = sum / index.entries.length || 1;
    }
    index.entries.forEach((entry, n) => count(index, entry, n));
    return index;
  }

  // Adds an entry to the postings: how much of each term it has, over all fields.
  function count({ postings, mean }, entry, n) {
    for (const [name, weight] of Object.entries(WEIGHTS)) {
      const list = entry.terms[name];
      const each = weight / (1 - LENGTH + (LENGTH * list.length) / mean[name]);
      for (const term of list) {
        if (!postings.has(term)) postings.set(term, new Map());
        postings.get(term).set(n, (postings.get(term).get(n) ?? 0) + each);
      }
    }
  }

  // ---- a question ----------------------------------------------------------------------

  // One letter more, less or other, or two that changed places.
  function isNear(a, b) {
    if (Math.abs(a.length - b.length) > 1) return false;
    let [start, end] = [0, 0];
    const rest = () => Math.min(a.length, b.length) - start - end;
    while (rest() > 0 && a[start] === b[start]) start += 1;
    while (rest() > 0 && a.at(-1 - end) === b.at(-1 - end)) end += 1;
    const [left, right] = [a, b].map((word) => word.slice(start, word.length - end));
    return Math.max(left.length, right.length) < 2 || left === [...right].reverse().join("");
  }

  // What each word of a question may stand for: itself; if it is the last, what it begins;
  // if the book does not know it, what is spelled nearly so. [Map(term: how likely), ...]
  function read(index, question) {
    const asked = terms(question, index.ways);
    const words = asked.length ? asked : pieces(question).map(stem);
    const meant = words.map((word) => new Map([[word, 1]]));
    const forms = [...index.forms].filter(([, terms]) => terms.length === 1);
    const last = question.match(/[\p{L}\p{Nd}]+$/u)?.[0].toLowerCase() ?? "";
    if (last.length > 1 || (last && words.length > 1))
      for (const [form, [term]] of forms)
        if (form.startsWith(last) && !meant.at(-1).has(term)) meant.at(-1).set(term, 0.5);
    for (const known of meant) {
      const [word] = known.keys();
      if (word.length < 4 || [...known.keys()].some((term) => index.postings.has(term))) continue;
      for (const [form, [term]] of forms) if (isNear(stem(form), word)) known.set(term, 0.5);
    }
    return meant;
  }

  // What each entry scores for one word.
  function weigh(index, meant) {
    const scores = new Map();
    for (const [term, likely] of meant) {
      const found = index.postings.get(term) ?? new Map();
      const rare = Math.log(1 + (index.entries.length - found.size + 0.5) / (found.size + 0.5));
      for (const [n, much] of found) {
        const score = (likely * rare * much) / (SATURATION + much);
        scores.set(n, Math.max(scores.get(n) ?? 0, score));
      }
    }
    return scores;
  }

  // Which of its names has all words, and how much of that name they are: [rank, 0 to 1].
  function rank({ kind, names, title }, words, question) {
    const has = (name) => words.every((meant) => [...meant.keys()].some((term) => name.has(term)));
    const [first, ...others] = names.map((name) => (has(name) ? words.length / name.size : 0));
    const best = Math.max(first, ...others);
    const isCode = kind === "name" && title === question.trim() && /[A-Z_]/.test(title);
    const plain = first || kind === "exercise" ? kind : "subject";
    const ranks = [isCode ? "code" : "", first === 1 ? `is ${kind}` : "", best ? plain : ""];
    if (!isCode && others.includes(1) && plain !== "exercise") ranks.push("is subject");
    return [Math.max(...ranks.map((name) => RANKS.indexOf(name))), best];
  }

  // The entries that a question finds, the best first.
  function find(index, question) {
    const words = read(index, question);
    const scores = words.map((meant) => weigh(index, meant));
    const wanted = new Set(words.flatMap((meant) => [...meant.keys()]));
    const found = index.entries.map((entry, n) => {
      const parts = scores.map((of) => of.get(n) ?? 0);
      const [named, share] = rank(entry, words, question);
      const all = parts.every((part) => part > 0);
      const score = parts.reduce((sum, part) => sum + part, 0) * (entry.kind === "page" ? 1.1 : 1) * (1 + share);
      return { ...entry, wanted, score, rank: Math.max(named, all ? 1 : 0) };
    });
    const least = found.filter(({ rank }) => rank).length < ENOUGH ? 0 : 1; // with all the words
    return found
      .filter(({ score, rank }) => score > 0 && rank >= least)
      .sort((a, b) => b.rank - a.rank || b.score - a.score);
  }

  // ---- what is shown -------------------------------------------------------------------

  // A text in parts: [words, whether they were asked for].
  const mark = (index, text, wanted) =>
    text
      .split(/([\p{L}\p{Nd}_]+)/u)
      .map((part) => [part, terms(part, index.ways).some((term) => wanted.has(term))]);

  // The sentence that has most of what was asked for.
  function excerpt(index, { text, wanted }) {
    const rare = (term) => 1 / (1 + (index.postings.get(term)?.size ?? 0));
    const worth = (sentence) =>
      [...new Set(terms(sentence, index.ways))].filter((term) => wanted.has(term)).reduce((sum, term) => sum + rare(term), 0);
    const sentences = text.split(SENTENCE).filter(Boolean);
    const values = sentences.map(worth);
    return mark(index, sentences[values.indexOf(Math.max(...values))] ?? "", wanted);
  }

  return { open, find, mark, excerpt, terms };
})();
if (typeof module !== "undefined") module.exports = bnSearch;
