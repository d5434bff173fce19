// The page of a run: all charts have the training step as their axis, and zoom together.
function together() {
  const plots = [...dynstab.plots.values()].map(({ plot }) => plot);
  let moving = false;
  for (const plot of plots) {
    plot.on("plotly_relayout", async (change) => {
      const key = Object.keys(change).find((name) => /^xaxis\d*\.(range|autorange)/.test(name));
      if (moving || !key) return;
      moving = true;
      const range = [...plot.layout.xaxis.range];
      for (const other of plots) {
        if (other === plot) continue;
        const axes = Object.keys(other.layout).filter((name) => name.startsWith("xaxis"));
        await Plotly.relayout(other, Object.fromEntries(axes.map((name) => [`${name}.range`, range])));
      }
      moving = false;
    });
  }
}

// A link to a rule opens it.
function follow() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details")) target.open = true;
}

start(async () => {
  window.addEventListener("hashchange", follow);
  follow();
}).then(together);
