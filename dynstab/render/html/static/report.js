// The page of one report: choosing a step marks it everywhere and opens its numbers.
let report;
let quantities;
let chosen = null;

const stepOf = (index) => report.measurements.steps.find((step) => step.index === index);
const known = (index) => report.system.steps.some((step) => step.index === index) || stepOf(index);
const number = (value, digits = 5) => (typeof value === "number" ? Number(value.toPrecision(digits)).toString() : value);

const marks = {
  x({ plot, shapes }, _, step) {
    const band = step === null ? [] : [{
      type: "rect", xref: "x", yref: "paper", x0: step - 0.5, x1: step + 0.5, y0: 0, y1: 1,
      fillcolor: "#d9a300", opacity: 0.28, line: { width: 0 },
    }];
    return Plotly.relayout(plot, { shapes: [...shapes, ...band] });
  },
  ring({ plot, shapes }, { places, reach }, step) {
    const at = places[step];
    const ring = !at ? [] : [{
      type: "rect", x0: at[0] - reach[0], x1: at[0] + reach[0], y0: at[1] - reach[1], y1: at[1] + reach[1],
      line: { color: "#d9a300", width: 3 },
    }];
    return Plotly.relayout(plot, { shapes: [...shapes, ...ring] });
  },
  eigenvalues({ plot }, { target }, step) {
    const own = (stepOf(step) || { eigenvalues: [] }).eigenvalues;
    return Plotly.restyle(plot, { x: [own.map(([real]) => real)], y: [own.map(([, imaginary]) => imaginary)] }, [target]);
  },
  spectrum({ plot }, _, step) {
    const found = stepOf(step);
    if (!found || !found.singular_values.length) return undefined;
    const logs = (values) => values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log);
    const sigmas = logs(found.singular_values.map((sigma) => sigma.value));
    const moduli = logs(found.eigenvalues.map(([real, imaginary]) => Math.hypot(real, imaginary)));
    return Plotly.update(plot, { x: [sigmas, moduli] }, { "title.text": `step ${step} · ${label(found.name)}` });
  },
};

function mark() {
  for (const row of document.querySelectorAll("#step-table tbody tr")) {
    const here = row.id === `step-${chosen}`;
    row.classList.toggle("chosen", here);
    row.toggleAttribute("aria-current", here);
  }
  for (const cell of document.querySelectorAll(".strip a")) cell.classList.toggle("chosen", Number(cell.dataset.step) === chosen);
  for (const entry of dynstab.plots.values()) if (entry.how) marks[entry.how.kind](entry, entry.how, chosen);
}

function choose(step) {
  if (!known(step)) return;
  chosen = step;
  history.replaceState(null, "", `#step-${step}`);
  mark();
  detail();
}

function dismiss() {
  chosen = null;
  history.replaceState(null, "", location.pathname + location.search);
  $("detail").hidden = true;
  mark();
}

function detail() {
  const info = report.system.steps.find((step) => step.index === chosen) || {};
  const found = stepOf(chosen) || {};
  $("detail-title").textContent = `Step ${chosen} · ${info.name ?? found.name}`;
  const body = $("detail-body");
  body.textContent = "";
  const coefficient = info.residual_coefficient === null || info.residual_coefficient === undefined ? "" : `, coefficient ${number(info.residual_coefficient)}`;
  body.append(make("p", `${info.kind ?? ""}${coefficient}${info.block ? ` · block ${info.block}` : ""} · ${info.parameters ?? 0} parameters`, { class: "quiet" }));
  report.flags.forEach((flag) => {
    if (flag.steps.includes(chosen)) body.append(make("p", `${flag.severity}: ${flag.code} ${flag.name}`, { class: `flag ${flag.severity}` }));
  });
  body.append(numbers(found));
  const row = make("p");
  row.append(make("a", "Show in the table", { href: `#step-${chosen}`, "data-jump": "" }));
  body.append(row);
  body.scrollTop = 0;
  $("detail").hidden = false;
}

function numbers(found) {
  const list = make("dl", undefined, { class: "pairs" });
  for (const [field, heading, words] of quantities) {
    const estimate = found[field];
    if (!estimate) continue;
    const entry = make("div");
    entry.append(make("dt", `${heading}, ${words}`));
    const error = estimate.error ? ` ± ${number(estimate.error, 2)}` : "";
    const value = make("dd", estimate.value === null ? "not measured" : number(estimate.value) + error);
    const how = estimate.value === null ? estimate.outcome : [estimate.label, estimate.method, estimate.outcome !== "converged" ? estimate.outcome : ""].filter(Boolean).join(" · ");
    value.append(make("span", how, { class: "method" }));
    entry.append(value);
    list.append(entry);
  }
  return list;
}

function beside(offset) {
  const indices = report.system.steps.map((step) => step.index);
  const at = indices.indexOf(chosen) + offset;
  if (at >= 0 && at < indices.length) choose(indices[at]);
}

function listen() {
  dynstab.onChoose.push(choose);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-step]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose(Number(link.dataset.step));
  });
  document.addEventListener("keydown", (event) => {
    if (chosen === null || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input")) return;
    const actions = { ArrowLeft: () => beside(-1), ArrowRight: () => beside(1), Escape: dismiss };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
  $("previous").addEventListener("click", () => beside(-1));
  $("next").addEventListener("click", () => beside(1));
  $("close").addEventListener("click", dismiss);
  window.addEventListener("hashchange", follow);
}

// A link of its own: #step-17 chooses the step, #rule-DS101 opens the rule's page.
function follow() {
  const step = /^#step-(\d+)$/.exec(location.hash);
  if (step) choose(Number(step[1]));
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details")) target.open = true;
  return target;
}

function sorting() {
  const table = $("step-table");
  const fields = [...table.querySelectorAll("thead th")].map((head) => head.dataset.field);
  const infos = new Map(report.system.steps.map((step) => [step.index, step]));
  const value = (row, field) => {
    const index = Number(row.id.slice(5));
    if (field === "index") return index;
    if (field === "name" || field === "kind") return (infos.get(index) || {})[field] ?? "";
    const found = (stepOf(index) || {})[field];
    return found && found.value !== null ? Number(found.value) : NaN;
  };
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = make("button", head.textContent, { type: "button" });
    if (head.title) button.title = head.title;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") === "descending" || (column < 3 && !head.hasAttribute("aria-sort"));
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row, fields[column]), row]);
      rows.sort(([a], [b]) => order(a, b) * (Number.isNaN(a) || Number.isNaN(b) || ascending ? 1 : -1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

function order(a, b) {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a < b ? -1 : a > b ? 1 : 0;
}

function filtering() {
  const rows = [...$("step-table").tBodies[0].rows];
  const names = new Map(report.system.steps.map(({ index, name, kind, block }) => [`step-${index}`, `${name} ${kind} ${block}`.toLowerCase()]));
  const apply = () => {
    const words = $("filter").value.trim().toLowerCase();
    const only = $("flagged").checked;
    for (const row of rows) row.hidden = (only && !row.className.match(/error|warning|info/)) || !(names.get(row.id) ?? "").includes(words);
    $("count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} steps`;
  };
  $("filter").addEventListener("input", apply);
  $("flagged").addEventListener("change", apply);
  apply();
}

function csv() {
  const quote = (value) => { const text = String(value ?? ""); return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  const head = ["index", "name", "kind", "block", ...quantities.flatMap(([field]) => [field, `${field}_error`, `${field}_label`])];
  const lines = report.system.steps.map((info) => {
    const found = stepOf(info.index) || {};
    const cells = quantities.flatMap(([field]) => { const e = found[field] || {}; return [e.value, e.error, e.value === null ? "" : e.label]; });
    return [info.index, info.name, info.kind, info.block, ...cells];
  });
  return [head, ...lines].map((line) => line.map(quote).join(",")).join("\n") + "\n";
}

async function copy() {
  const text = csv();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("count").textContent = "copied";
}

function saving(text) {
  $("save").hidden = false;
  $("save").addEventListener("click", () => {
    const link = make("a", undefined, { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "report.json" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

start(async (data) => {
  report = JSON.parse(data.report);
  quantities = data.quantities;
  listen();
  saving(data.report);
  if ($("step-table")) {
    document.querySelector(".tools").hidden = false;
    sorting();
    filtering();
    $("copy").addEventListener("click", copy);
  }
  // The browser went there before the charts had their room.
  const target = follow();
  if (target) target.scrollIntoView({ behavior: "instant" });
}).then(mark);
