"use strict";
// Shows one step of the trace. Tokens go into the page as text, never as markup.

const { steps, seconds } = JSON.parse(document.getElementById("data").textContent);
const links = [...document.querySelectorAll("#text a")];
const byId = (id) => document.getElementById(id);
let shown = 0;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// What cannot be seen, as signs.
function visible(text) {
  const signs = { "\n": "↵", "\r": "␍", "\t": "⇥", "": "(nothing)" };
  if (Object.hasOwn(signs, text)) return signs[text];
  return text.replace(/[\u0000-\u001f\u007f]/g, (sign) => signs[sign] ?? "\ufffd");
}

const token = (text) => element("span", "token", visible(text));

// No number where there was none that JSON can say.
const figure = (value) => (value === null ? "?" : value.toFixed(2));

const WORDS = { "cut": "agreed, after the end of the text", "bonus": "the target's own token" };

function node(text, outcome, figures) {
  const kind = outcome.replace(" ", "-");
  const made = element("span", `node ${kind}`, token(text));
  if (figures.length) made.append(" ", element("small", "", figures.join("  ")));
  made.title = [WORDS[outcome] ?? outcome, ...figures].join(", ");
  return made;
}

function tree(step) {
  const below = new Map();
  for (const each of step.nodes) {
    below.set(each.parent, [...(below.get(each.parent) ?? []), each]);
  }
  const end = step.nodes.filter((each) => each.outcome === "accepted").at(-1)?.id ?? 0;

  function branch(id, label) {
    const item = element("li", "", label);
    const items = (below.get(id) ?? []).map((each) => {
      const value = step.expected === null ? [] : [figure(each.value)];
      const figures = [...value, `p ${figure(each.p)}`];
      const made = branch(each.id, node(each.token, each.outcome, figures));
      made.className = { accepted: "kept", "not reached": "beyond" }[each.outcome] ?? "";
      return made;
    });
    if (id === end && step.bonus) {
      const bonus = step.tokens.at(-1);
      const label = node(bonus.token, "bonus", [`p ${figure(bonus.p)}`]);
      items.push(element("li", "kept", label));
    }
    if (items.length) item.append(element("ul", "", ...items));
    return item;
  }

  const root = element("span", "node root", token(step.root ?? "root"));
  root.title = "the root: the last token of the text before this step";
  return element("ul", "", branch(0, root));
}

function tokens(list) {
  return list.flatMap((each) => [node(each.token, each.outcome, [`p ${figure(each.p)}`]), " "]);
}

function facts(step) {
  const accepted = step.nodes.filter((each) => each.outcome === "accepted");
  const end = accepted.at(-1)?.id ?? 0;
  const rejected = step.nodes.filter((each) => each.outcome === "rejected" && each.parent === end);
  const source = step.fromText ? ", suggested by the text itself" : "";
  const promised = step.expected === null ? "" : `; their values promised ${step.expected} tokens`;
  const drafted = step.budget
    ? `${step.budget} draft tokens, ${step.depth} levels${source}${promised}`
    : "nothing: a step of plain decoding";
  const wanted = step.bonus
    ? tokens([{ ...step.tokens.at(-1), outcome: "bonus" }])
    : ["nothing more: the text ends on the accepted path"];
  const rows = [["verified", [drafted]]];
  if (step.budget) {
    rows.push(["accepted", accepted.length ? tokens(accepted) : ["none"]]);
    rows.push(["rejected after it", rejected.length ? tokens(rejected) : ["none"]]);
  }
  rows.push([rejected.length ? "the target wanted instead" : "the target wanted", wanted]);
  return rows.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", ...value)]);
}

function times(phases) {
  const known = Object.entries(phases).filter(([, value]) => value > 0);
  const total = known.reduce((sum, [, value]) => sum + value, 0);
  const bar = element("div", "bar");
  const list = element("ul", "times");
  for (const [phase, value] of known) {
    const part = element("span", phase);
    part.style.flex = `${(100 * value) / total} 0 0`;
    bar.append(part);
    const share = Math.round((100 * value) / total);
    const words = `${phase} ${(1000 * value).toFixed(1)} ms, ${share} %`;
    list.append(element("li", "", element("span", `swatch ${phase}`), words));
  }
  bar.setAttribute("aria-hidden", "true");
  return [bar, list];
}

function show(index, { focus = false } = {}) {
  shown = Math.max(0, Math.min(index, steps.length - 1));
  const step = steps[shown];
  const accepted = step.nodes.filter((each) => each.outcome === "accepted").length;
  byId("step-heading").textContent =
    `Step ${shown + 1} of ${steps.length}: ${accepted} accepted, ${step.tokens.length} committed`;
  byId("facts").replaceChildren(...facts(step));
  byId("step-time").replaceChildren(...times(step.seconds));
  byId("tree").replaceChildren(tree(step));
  byId("previous").disabled = shown === 0;
  byId("next").disabled = shown === steps.length - 1;
  links.forEach((link, number) => {
    link.tabIndex = number === shown ? 0 : -1; // one stop for the tab key; arrows do the rest
    if (number === shown) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
  });
  if (focus) links[shown].focus();
}

// Keeps the address in step, so that a step can be linked to; adds nothing to the history.
function go(index, options) {
  show(index, options);
  history.replaceState(null, "", `#step-${shown + 1}`);
}

function fromAddress() {
  const number = /^#step-(\d+)$/.exec(location.hash);
  show(number ? Number(number[1]) - 1 : 0);
}

function key(event) {
  const moves = { ArrowLeft: shown - 1, ArrowRight: shown + 1, Home: 0, End: steps.length - 1 };
  const inText = event.target.closest("#text, .heading button");
  const edges = event.key === "Home" || event.key === "End"; // elsewhere they scroll the page
  if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
  if (!inText && (edges || event.target !== document.body)) return;
  event.preventDefault();
  go(moves[event.key], { focus: !event.target.closest("button") });
}

byId("run-time").replaceChildren(...times(seconds));
if (steps.length) {
  links.forEach((link, number) => link.addEventListener("click", (event) => {
    event.preventDefault();
    go(number);
  }));
  byId("previous").addEventListener("click", () => go(shown - 1));
  byId("next").addEventListener("click", () => go(shown + 1));
  byId("whole").addEventListener("change", (event) => {
    byId("tree").classList.toggle("reached", !event.target.checked);
  });
  document.addEventListener("keydown", key);
  addEventListener("hashchange", fromAddress);
  fromAddress();
} else {
  byId("step").hidden = true;
}
