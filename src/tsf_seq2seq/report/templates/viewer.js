"use strict";
// Pick a subject and a task, look through slices: by NiiVue where it is there, else by strips.
(() => {
  const RANKS = { best: "best", median: "median", worst: "worst", only: "only case" };

  function describe(task) {
    const sources = task.sources.join(" + ");
    return `${sources} → ${task.target} (${task.psnr}, ${RANKS[task.rank]} of target)`;
  }

  function panelsOf(subject, task) {
    const sources = task.sources.map((name) => ({
      title: `source ${name}`, path: subject.sequences[name],
    }));
    const target = { title: `target ${task.target}`, path: subject.sequences[task.target] };
    const overlays = {};
    for (const name of task.overlays) overlays[name] = `${task.folder}/${name}`;
    if (subject.lesion) overlays.lesion = subject.lesion;
    const synthesis = {
      title: `synthesis of ${task.target}`, path: `${task.folder}/synthesis`, overlays,
    };
    return [...sources, target, synthesis];
  }

  function start(box) {
    const manifest = Report.json(box);
    const choice = (name) => box.querySelector(`[data-choice="${name}"]`);
    const [subjects, tasks, slice, opacity] =
      ["subject", "task", "slice", "opacity"].map(choice);
    const place = box.querySelector(".panels");
    const mode = box.querySelector(".mode");
    const onSlice = (index) => {
      slice.value = index;
      tell();
    };
    let panels = new StripPanels(place, manifest);
    if (VolumePanels.available(box)) panels = new VolumePanels(place, manifest, onSlice);
    let showing = Promise.resolve();

    const subject = () => manifest.subjects[Number(subjects.value)];
    const task = () => subject().tasks[Number(tasks.value)];
    const overlay = () => box.querySelector('input[name="overlay"]:checked').value;

    function tell() {
      const depth = panels.depth(subject(), Number(slice.value));
      box.querySelector("output").textContent = `slice ${depth + 1} of ${subject().depth}`;
    }

    function move(index) {
      slice.value = Math.min(Math.max(index, 0), Number(slice.max));
      panels.setSlice(Number(slice.value));
      tell();
    }

    // One after the other: a panel can't load two tasks at once.
    function show() {
      showing = showing.then(async () => {
        box.setAttribute("aria-busy", "true");
        const wanted = panelsOf(subject(), task());
        const there = Object.keys(wanted[wanted.length - 1].overlays);
        for (const label of box.querySelectorAll("[data-overlay]")) {
          label.hidden = !there.includes(label.dataset.overlay);
          if (label.hidden && label.firstElementChild.checked) {
            box.querySelector('[value="none"]').checked = true;
          }
        }
        await panels.show(subject(), wanted);
        panels.setOverlay(overlay(), opacity.value);
        move(Number(slice.value));
        box.setAttribute("aria-busy", "false");
      }).catch(fallBack);
    }

    function fallBack(error) {
      if (panels instanceof StripPanels) throw error;
      panels = new StripPanels(place, manifest);
      mode.textContent = `The volumes could not be shown (${error.message}): slice strips instead.`;
      changeSubject();
    }

    function changeSubject() {
      Report.fill(tasks, subject().tasks.map(describe));
      slice.max = panels.count(subject()) - 1;
      slice.value = panels.first(subject());
      show();
    }

    Report.fill(subjects, manifest.subjects.map((own) => own.name));
    subjects.addEventListener("change", changeSubject);
    tasks.addEventListener("change", show);
    slice.addEventListener("input", () => move(Number(slice.value)));
    for (const control of [opacity, box.querySelector("fieldset")]) {
      control.addEventListener("input", () => panels.setOverlay(overlay(), opacity.value));
    }
    place.tabIndex = 0;
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
    place.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      event.stopPropagation();
      move(Number(slice.value) + steps[event.key]);
    }, true);
    place.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // the browser's zoom
      event.preventDefault();
      event.stopPropagation();
      move(Number(slice.value) - Math.sign(event.deltaY));
    }, { capture: true, passive: false });
    const strips = panels instanceof StripPanels;
    mode.textContent = strips
      ? "Shown as slice strips, every few slices. All slices: make the report with --viewer (make " +
        "viewer fetches NiiVue), run python -m http.server in its folder, open http://localhost:8000."
      : "Shown by NiiVue: wheel or arrow keys change the slice, a click moves all panels, dragging " +
        "with the right button changes the contrast.";
    changeSubject();
  }

  document.querySelectorAll(".viewer").forEach(start);
})();
