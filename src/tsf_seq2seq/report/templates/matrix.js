"use strict";
// The task matrix: colours by the chosen method and metric, details on hover and keyboard focus.
(() => {
  // Cividis: rises in brightness, for colour-blind readers too.
  const STOPS = [[0, 34, 78], [62, 74, 109], [124, 123, 120], [187, 173, 108], [254, 232, 56]];

  function cividis(share) {
    const place = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
    const index = Math.min(Math.floor(place), STOPS.length - 2);
    return STOPS[index].map((value, i) =>
      Math.round(value + (STOPS[index + 1][i] - value) * (place - index)));
  }

  function paint(cell, share) {
    const [r, g, b] = cividis(share);
    cell.style.backgroundColor = `rgb(${r}, ${g}, ${b})`;
    cell.style.color = 0.299 * r + 0.587 * g + 0.114 * b > 125 ? "#000" : "#fff";
  }

  function start(box) {
    const content = Report.json(box);
    const choice = (name) => box.querySelector(`[data-choice="${name}"]`);
    const rows = [...box.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
    const detail = box.querySelector(".detail");
    const ends = box.querySelectorAll(".legend span");
    const current = () => {
      const metric = content.metrics.find((own) => own.key === choice("metric").value);
      const method = choice("method").value;
      return { method, metric, cells: content.cells[method][metric.key] };
    };

    function update() {
      const { metric, cells } = current();
      const means = cells.flat().filter(Boolean).map((value) => value[0]);
      const [low, high] = [Math.min(...means), Math.max(...means)];
      rows.forEach((row, i) => row.forEach((cell, j) => {
        const value = cells[i][j];
        cell.textContent = value ? value[0].toFixed(metric.digits) : "";
        cell.removeAttribute("style");
        if (!value) return;
        const share = high > low ? (value[0] - low) / (high - low) : 0.5;
        paint(cell, metric.sign > 0 ? share : 1 - share);
      }));
      const order = metric.sign > 0 ? [low, high] : [high, low];
      ends.forEach((end, i) => {
        end.textContent = `${order[i].toFixed(metric.digits)} (${i ? "best" : "worst"})`;
      });
    }

    function tell(i, j) {
      const { method, metric, cells } = current();
      const task = `${content.rows[i].replaceAll("+", " + ")} → ${content.sequences[j]}`;
      const value = cells[i][j];
      if (!value) {
        detail.textContent = `${task}: not scored`;
        return;
      }
      const [mean, deviation, count] = value;
      const digits = metric.digits;
      detail.textContent = `${task}, ${method}: ${metric.title} ${mean.toFixed(digits)} ± ` +
        `${deviation.toFixed(digits)} (mean ± standard deviation over ${count} volumes)`;
    }

    const place = (cell) => {
      const i = rows.findIndex((row) => row.includes(cell));
      return i < 0 ? null : [i, rows[i].indexOf(cell)];
    };
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const body = box.querySelector("tbody");
    body.addEventListener("keydown", (event) => {
      const from = place(event.target);
      const step = steps[event.key];
      if (!from || !step) return;
      event.preventDefault();
      const next = rows[from[0] + step[0]]?.[from[1] + step[1]];
      if (!next) return;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
    for (const kind of ["focusin", "pointerover"]) {
      body.addEventListener(kind, (event) => {
        const found = place(event.target);
        if (found) tell(...found);
      });
    }
    rows[0][0].tabIndex = 0;
    box.addEventListener("change", update);
    update();
  }

  document.querySelectorAll(".matrix").forEach(start);
})();
