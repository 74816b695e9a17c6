// @ts-check
// The editor of the page: CodeMirror 6, bundled by esbuild when the site is built.
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { setDiagnostics } from "@codemirror/lint";
import { python } from "@codemirror/lang-python";
import { EditorView, keymap, lineNumbers } from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";

/** An editor in `parent`. Tab leaves it, as it leaves every field of a page.
 * @param {Element} parent @param {string} code @param {string} label
 * @param {(code: string) => void} changed @param {() => void} enter what Ctrl-Enter does */
export function edit(parent, code, label, changed, enter) {
  const view = new EditorView({
    parent,
    doc: code,
    extensions: [
      keymap.of([{ key: "Mod-Enter", run: () => (enter(), true) }]),
      keymap.of([...defaultKeymap, ...historyKeymap]),
      history(),
      indentOnInput(),
      bracketMatching(),
      lineNumbers(),
      python(),
      EditorView.lineWrapping, // on a phone a line has no room
      // A key belongs to the code: elsewhere on the page "/" goes to the search.
      EditorView.domEventHandlers({ keydown: (event) => event.stopPropagation() }),
      indentUnit.of("    "),
      syntaxHighlighting(classHighlighter),
      EditorView.contentAttributes.of({ "aria-label": label }),
      EditorView.updateListener.of((u) => u.docChanged && changed(u.state.doc.toString())),
    ],
  });
  return {
    focus: () => view.focus(),
    close: () => view.destroy(),
    /** @param {string} text */
    write: (text) =>
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } }),
    /** Mark the line an error came from, or none. @param {number | null} line */
    mark(line) {
      const { from, to } = view.state.doc.line(Math.min(line ?? 1, view.state.doc.lines));
      const mark = { from, to, severity: /** @type {const} */ ("error"), message: "stopped here" };
      view.dispatch(setDiagnostics(view.state, line ? [mark] : []));
    },
  };
}
