// Sets formulas: reads lines [TeX, is it on a line of its own], writes lines of HTML, both
// JSON; null asks for the style sheet. Run by formulas.py, with MathJax's folder, the
// folder of its fonts as seen from the style sheet, and options for TeX.
const [folder, fontURL, tex] = process.argv.slice(2);

(async () => {
  const MathJax = await require(`${folder}/node-main.js`).init({
    loader: { load: ["input/tex", "output/chtml", "a11y/assistive-mml"] },
    tex: JSON.parse(tex),
    chtml: { fontURL, adaptiveCSS: false },
  });
  const { adaptor } = MathJax.startup;
  for await (const line of require("node:readline").createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    const made = asked
      ? adaptor.outerHTML(await MathJax.tex2chtmlPromise(asked[0], { display: asked[1] }))
      : adaptor.textContent(MathJax.chtmlStylesheet());
    console.log(JSON.stringify(made));
  }
})();
