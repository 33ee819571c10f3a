"use strict";
// Of several charts, shows the one that is chosen.
(() => {
  function start(box) {
    const select = box.querySelector("select");
    const charts = [...box.querySelectorAll(".chart")];
    if (!select) return;
    const show = () => charts.forEach((chart, index) => {
      chart.hidden = index !== Number(select.value);
      if (chart.hidden) return;
      for (const drawn of chart.querySelectorAll(".js-plotly-plot")) Plotly.Plots.resize(drawn);
    });
    select.addEventListener("change", show);
    show();
  }

  document.querySelectorAll(".choice").forEach(start);
})();
