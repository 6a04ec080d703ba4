// Filters the transcripts and shows them in pages. Model text is only ever set as the text of a node, never parsed as HTML.
"use strict";
(() => {
  const PAGE = 10;
  const MARKS = { right: "✓", wrong: "✗", retracted: "↶" };
  const data = JSON.parse(document.getElementById("transcripts").textContent);
  const browser = document.getElementById("browser");
  const form = document.getElementById("filters");
  const list = document.getElementById("problems");
  const field = form.elements;
  const number = (value) => value.toLocaleString("en-US");
  const distinct = (key) => [...new Set(data.problems.map((problem) => problem[key]))];
  let page = 0;

  function make(tag, name, ...children) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children); // strings become text nodes
    return element;
  }

  function marked(verdict, name, ...children) {
    const mark = make("span", "mark", MARKS[verdict]);
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", verdict);
    return make("div", name, mark, ...children);
  }

  function step([text, verdict = "right", reason = ""]) {
    if (text === "wait" && verdict === "right") return make("div", "wait", make("span", "mark"), text);
    const note = [verdict === "retracted" ? "taken back" : "", reason].filter(Boolean).join(": ");
    return marked(verdict, verdict, make("bdi", "", text), ...(note ? [" ", make("i", "", note)] : []));
  }

  function chain(title, { correct, voice, tokens, answer, steps, raw, left_out }) {
    const text = make("div", "text");
    const note = (words) => make("div", "", make("i", "", words));
    if (raw !== undefined) text.append(note("without checked steps, the whole text:"), make("div", "", make("bdi", "", raw)));
    else text.append(...(steps.length ? steps.map(step) : [note("no steps: answered at once")]));
    if (left_out) text.append(note(`… ${number(left_out)} more characters in samples.jsonl`));
    const last = answer === null ? ["no answer"] : ["answer ", make("bdi", "", answer)];
    const verdict = correct ? "right" : "wrong";
    text.append(marked(verdict, `answer ${verdict}`, ...last));
    return make("section", "chain", make("h4", "", `${title} `, make("small", "", `· ${voice} · ${tokens} tokens`)), text);
  }

  function article(place) {
    const { question, answer, family, axis, depth, chains } = data.problems[place];
    const steps = depth === 0 ? "" : `, ${depth} operation${depth === 1 ? "" : "s"}`;
    const about = `· ${family}${steps}${axis === null ? "" : `, ${axis}`} · problem ${place + 1}`;
    const head = make("h3", "", make("bdi", "", `${question} = ${answer}`), " ", make("span", "", about));
    const side = chains.map((one, column) => chain(data.columns[column], one));
    return make("article", "problem", head, make("div", "side", ...side));
  }

  function matches({ question, family, axis, depth, chains }) {
    if (field.family.value && field.family.value !== family) return false;
    if (field.depth.value && Number(field.depth.value) !== depth) return false;
    if (field.axis.value && field.axis.value !== String(axis)) return false;
    if (field.answer.value && field.answer.value !== String(chains[field.column.value].correct)) return false;
    if (!question.toLowerCase().includes(field.text.value.trim().toLowerCase())) return false;
    if (!field.changed.value) return true;
    const [before, after] = data.changed.map((column) => chains[column].correct);
    return before !== after && (field.changed.value === "both" || (field.changed.value === "gained") === after);
  }

  function show() {
    const all = data.problems.map((_, place) => place);
    const places = field.show.value === "fixed" ? data.fixed : all.filter((place) => matches(data.problems[place]));
    const last = Math.max(0, Math.ceil(places.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const shown = places.slice(page * PAGE, (page + 1) * PAGE);
    list.replaceChildren(...shown.map(article));
    const range = shown.length ? `, ${number(page * PAGE + 1)} to ${number(page * PAGE + shown.length)} shown` : "";
    document.getElementById("count").textContent = `${number(places.length)} of ${number(all.length)} problems${range}`;
    for (const button of browser.querySelectorAll(".previous")) button.disabled = page === 0;
    for (const button of browser.querySelectorAll(".next")) button.disabled = page === last;
  }

  function turn(pages) {
    page += pages;
    show();
    if (browser.getBoundingClientRect().top < 0) form.scrollIntoView();
  }

  function options(select, labels) {
    for (const [value, label] of labels) select.append(new Option(label, value));
    if (select.options.length < 3 && select.name !== "column") select.parentElement.hidden = true; // nothing to choose
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, .scroll")) return;
    const box = list.getBoundingClientRect();
    if (box.bottom < 0 || box.top > window.innerHeight) return;
    if (event.key === "j" || event.key === "ArrowRight") turn(1);
    if (event.key === "k" || event.key === "ArrowLeft") turn(-1);
  }

  const depths = distinct("depth").sort((a, b) => a - b);
  options(field.family, distinct("family").map((name) => [name, name]));
  options(field.depth, depths.map((depth) => [depth, depth === 0 ? "not known" : depth]));
  options(field.axis, distinct("axis").map((name) => [name, name === null ? "none: the exam proper" : name]));
  options(field.column, data.columns.map((name, column) => [column, name]));
  field.changed.parentElement.hidden = data.changed === null;
  if (data.changed !== null) {
    const [before, after] = data.changed.map((column) => data.columns[column]);
    field.changed.parentElement.firstChild.textContent = `changed, ${before} → ${after} `;
    field.column.options[data.changed[1]].defaultSelected = true;
    field.column.value = data.changed[1];
  }
  form.addEventListener("input", (event) => {
    if (event.target !== field.show) field.show.value = "all"; // a filter is for all problems
    else if (field.show.value === "fixed") return form.reset(); // the ten are shown without filters
    page = 0;
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => { page = 0; show(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of browser.querySelectorAll(".previous")) button.addEventListener("click", () => turn(-1));
  for (const button of browser.querySelectorAll(".next")) button.addEventListener("click", () => turn(1));
  document.addEventListener("keydown", key);
  browser.hidden = false;
  show();
})();
