"use strict";
// What every page shares: unpacking, charts, light and dark, printing.
const dynstab = { plots: new Map(), onChoose: [] };
const $ = (id) => document.getElementById(id);

// Base 85: five characters, most significant first, for four bytes; the end is padded with the last character.
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%,()*+-;.=:?@^_[{|}~";

function decode(text) {
  const values = new Uint8Array(128);
  for (let i = 0; i < ALPHABET.length; i++) values[ALPHABET.charCodeAt(i)] = i;
  const missing = (5 - (text.length % 5)) % 5;
  const padded = text + "~".repeat(missing);
  const words = new DataView(new ArrayBuffer((padded.length / 5) * 4));
  for (let i = 0, at = 0; i < padded.length; at += 4) {
    let word = 0;
    for (let digit = 0; digit < 5; digit++) word = word * 85 + values[padded.charCodeAt(i++)];
    words.setUint32(at, word);
  }
  return new Uint8Array(words.buffer, 0, words.byteLength - missing);
}

async function unpack(id) {
  const stream = new Blob([decode($(id).textContent.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Plotly reads a little markup in its labels.
const label = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function template() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: color("--grid"), linecolor: color("--soft"), tickcolor: color("--soft"), zerolinecolor: color("--line") };
  return {
    layout: {
      font: { color: color("--ink") }, xaxis: axis, yaxis: axis,
      hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: color("--ink") } },
    },
  };
}

function repaint() {
  for (const { plot } of dynstab.plots.values()) Plotly.relayout(plot, { template: template() });
}

// On a phone, legends between panels are short and stand in two columns.
function squeeze(layout) {
  layout.margin = { ...layout.margin, l: 48, r: 8 };
  const legends = Object.keys(layout).filter((name) => name.startsWith("legend"));
  if (legends.length < 2) return;
  for (const name of legends) layout[name] = { ...layout[name], entrywidth: 0.49, entrywidthmode: "fraction", font: { size: 10 } };
}

async function draw(name, figure) {
  const plot = $("chart-" + name);
  plot.textContent = "";
  const touch = matchMedia("(pointer: coarse)").matches;
  const narrow = plot.clientWidth < 520;
  const layout = { ...figure.layout, template: template(), autosize: true };
  if (touch) layout.dragmode = false;
  if (narrow) squeeze(layout);
  const buttons = ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"];
  await Plotly.newPlot(plot, figure.data, layout, {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: buttons, displayModeBar: touch ? false : "hover",
  });
  const how = (figure.layout.meta || {}).link;
  dynstab.plots.set(name, { plot, how, shapes: figure.layout.shapes || [], height: figure.layout.height });
  plot.on("plotly_click", ({ points }) => {
    const point = points[0];
    const step = point.customdata ? point.customdata[0] : how && how.kind === "x" ? point.x : undefined;
    if (Number.isInteger(step)) dynstab.onChoose.forEach((choose) => choose(step));
  });
}

function themes() {
  const button = $("theme");
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.hidden = false;
  name();
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { name(); repaint(); });
}

function printing() {
  let closed = [];
  let theme;
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open], .silent)")];
    closed.forEach((details) => { details.open = true; });
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    for (const { plot } of dynstab.plots.values()) Plotly.relayout(plot, { template: template(), width: 680 });
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((details) => { details.open = false; });
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    for (const { plot } of dynstab.plots.values()) Plotly.relayout(plot, { template: template(), width: null, autosize: true });
  });
}

// How far the page is, for whoever waits for it; with the time in the browser's timeline.
function reached(mark) {
  performance.mark(mark);
  document.documentElement.dataset[mark] = "";
}

const pause = () => new Promise((resume) => setTimeout(resume));

async function start(begin) {
  themes();
  printing();
  if (!("DecompressionStream" in window)) return;
  const script = $("plotly") ? unpack("plotly") : null;
  const data = JSON.parse(await unpack("data"));
  // The room is kept free, so that nothing moves while charts appear.
  for (const name of data.names) $("chart-" + name).style.minHeight = $("chart-" + name).dataset.height + "px";
  await begin(data);
  reached("ready");
  // Plotly takes long to start: what can be read and used already comes first.
  await pause();
  if (script) document.head.append(make("script", await script));
  for (const [i, name] of data.names.entries()) {
    await draw(name, JSON.parse(data.figures[i]));
    await pause();
  }
  reached("drawn");
}
