const base = {
  margin: {l: 54, r: 12, t: 8, b: 40}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
  font: {size: 12, family: getComputedStyle(document.body).fontFamily}, hovermode: "closest", legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0},
};
const axis = {automargin: true, fixedrange: true, zeroline: false, ticklabelstandoff: 4};
const plots = [];
for (const [group, list] of Object.entries(charts)) list.forEach((chart, place) => {
  const layout = {...base, ...chart.layout};
  const cross = layout.hovermode === "x unified" ? {showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "dot"} : {};
  layout.xaxis = {...axis, showgrid: false, nticks: 6, ...cross, ...chart.layout.xaxis};
  if (cross.showspikes) layout.xaxis.unifiedhovertitle = {text: `${layout.xaxis.title.text} %{x}`};
  layout.yaxis = {...axis, nticks: 5, ...chart.layout.yaxis};
  if (layout.showlegend) layout.margin = {...base.margin, t: 30};
  const plot = document.getElementById(`${group}-${place}`);
  Plotly.newPlot(plot, chart.traces, layout, {displayModeBar: false});
  new ResizeObserver(() => Plotly.Plots.resize(plot)).observe(plot);
  plot.addEventListener("keydown", event => read(plot, event));
  plot.addEventListener("blur", () => Plotly.Fx.unhover(plot));
  plots.push(plot);
});

// What the pointer shows, the arrow keys show as well, and the figure's output says it.
function stops(plot) {
  const own = plot.data.flatMap((trace, curveNumber) => trace.hoverinfo === "skip" || plot._fullData[curveNumber].visible !== true ? []
    : trace.x.map((x, pointNumber) => ({trace, curveNumber, pointNumber, x})));
  if (plot.layout.hovermode !== "x unified") return own.map(point => [point]);
  const at = new Map();
  own.filter(point => point.trace.y[point.pointNumber] !== null).forEach(point => at.set(point.x, [...(at.get(point.x) || []), point]));
  return [...at.keys()].sort((a, b) => a - b).map(x => at.get(x));
}
function read(plot, event) {
  const all = stops(plot), last = all.length - 1, now = plot.place ?? -1;
  const next = {ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: last}[event.key];
  if (next === undefined || last < 0) return;
  event.preventDefault();
  plot.place = Math.min(last, Math.max(0, next));
  const points = all[plot.place];
  const {x, curveNumber, pointNumber} = points[0];
  Plotly.Fx.hover(plot, plot.layout.hovermode === "x unified" ? {xval: x} : [{curveNumber, pointNumber}]);
  const number = value => String(Number(value.toPrecision(4)));
  const words = ({trace, pointNumber}) => trace.customdata ? trace.customdata[pointNumber].replaceAll("<br>", ", ") : `${trace.name} ${number(trace.y[pointNumber])}`;
  const where = points[0].trace.customdata ? "" : `${plot.layout.xaxis.title.text} ${number(x)}: `;
  plot.nextElementSibling.textContent = where + points.map(words).join("; ");
}

// Paper is narrower, and there is no event that tells a chart so.
const setWidth = width => plots.forEach(plot => Plotly.relayout(plot, {width: width(plot), autosize: !width(plot)}));
addEventListener("beforeprint", () => setWidth(plot => plot.closest(".wide") ? 640 : 310));
addEventListener("afterprint", () => setWidth(() => null));
