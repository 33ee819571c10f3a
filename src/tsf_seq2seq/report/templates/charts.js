"use strict";
// Draws each chart when it comes near the window, anew when the theme changes.
(() => {
  function themed(figure) {
    const ink = Report.style("--ink");
    const grid = Report.style("--line");
    const data = structuredClone(figure.data);
    for (const trace of data) {
      if (!trace.meta || trace.meta.colour === undefined) continue;
      const colour = Report.colour(trace.meta.colour);
      trace.marker = { ...trace.marker, color: colour };
      if (trace.line) trace.line.color = colour;
      if (trace.error_y) trace.error_y.color = colour;
      if (trace.marker.pattern) trace.marker.pattern.fgcolor = Report.style("--page");
    }
    const layout = structuredClone(figure.layout);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: ink, family: Report.style("--font"), size: 13 };
    layout.hoverlabel = { font: { color: ink }, bgcolor: Report.style("--page") };
    for (const axis of ["xaxis", "yaxis"]) {
      layout[axis] = { ...layout[axis], gridcolor: grid, zerolinecolor: grid, linecolor: grid };
    }
    return { data, layout };
  }

  const options = { responsive: true, displayModeBar: false };

  function draw(plot) {
    if (!plot.figure) plot.figure = Report.json(plot);
    const { data, layout } = themed(plot.figure);
    if (plot.target) {
      Plotly.react(plot.target, data, layout, options);
      return;
    }
    plot.target = plot.appendChild(document.createElement("div"));
    Plotly.newPlot(plot.target, data, layout, options);
  }

  const plots = [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((own) => own.isIntersecting)) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px" },
  );
  for (const plot of plots) watcher.observe(plot);
  Report.dark.addEventListener("change", () => plots.filter((plot) => plot.target).forEach(draw));
  window.addEventListener("beforeprint", () => plots.forEach(draw));
})();
