// The page of a comparison: one report of a series at a time, and only the numbers that moved.
function emphasize(number) {
  for (const { plot } of dynstab.plots.values()) {
    const opacity = plot.data.map((trace) => (number < 0 || trace.meta.report === number ? 1 : 0.15));
    Plotly.restyle(plot, { opacity });
  }
}

function series() {
  const slider = $("slider");
  if (!slider) return;
  const names = [...document.querySelectorAll(".verdicts h2")].map((head) => head.textContent);
  $("series").hidden = false;
  slider.addEventListener("input", () => {
    const number = Number(slider.value) - 1;
    $("shown").textContent = number < 0 ? "all" : names[number];
    slider.setAttribute("aria-valuetext", $("shown").textContent);
    emphasize(number);
  });
}

function onlyMoved() {
  const box = $("moved");
  if (!box) return;
  box.closest(".tools").hidden = false;
  const apply = () => {
    for (const row of $("step-table").tBodies[0].rows) row.hidden = box.checked && !row.classList.contains("moved");
  };
  box.addEventListener("change", apply);
  apply();
}

start(async () => {
  series();
  onlyMoved();
});
