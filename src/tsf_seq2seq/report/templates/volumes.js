"use strict";
// Panels of NiiVue, which shows every slice of the volumes: one canvas a panel, all linked.
class VolumePanels {
  // NiiVue must be there, WebGL 2 too, and a server: a page from disk may not read its volumes.
  static available(box) {
    return box.dataset.niivue === "yes" && location.protocol !== "file:" &&
      typeof niivue === "object" && !!document.createElement("canvas").getContext("webgl2");
  }

  constructor(box, manifest, onSlice) {
    this.box = box;
    this.manifest = manifest;
    this.onSlice = onSlice;
    this.pool = [];
    this.shown = [];
  }

  get name() {
    return "NiiVue";
  }

  count(subject) {
    return subject.depth;
  }

  first(subject) {
    return subject.slices[subject.shown];
  }

  depth(subject, index) {
    return index;
  }

  async show(subject, panels) {
    this.subject = subject;
    while (this.pool.length < panels.length) this.pool.push(await this.panel());
    this.shown = this.pool.slice(0, panels.length);
    this.box.replaceChildren(...this.shown.map((own) => own.figure));
    await Promise.all(this.shown.map((own, i) => this.load(own, panels[i])));
    for (const own of this.shown) {
      own.viewer.resizeListener();
      own.viewer.broadcastTo(
        this.shown.filter((other) => other !== own).map((other) => other.viewer), { "2d": true });
    }
  }

  async panel() {
    const figure = document.createElement("figure");
    const frame = figure.appendChild(document.createElement("div"));
    frame.className = "frame"; // NiiVue makes the canvas as large as what holds it
    const canvas = frame.appendChild(document.createElement("canvas"));
    const caption = figure.appendChild(panelTitle(""));
    this.box.append(figure);
    const viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairWidth: 0,
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      loadingText: "",
      logLevel: "error",
      viewModeHotKey: "",
      clipPlaneHotKey: "",
    });
    viewer.addColormap("map", this.manifest.colours);
    viewer.addColormap("above", this.manifest.signed_colours.above);
    viewer.addColormap("below", this.manifest.signed_colours.below);
    await viewer.attachToCanvas(canvas);
    viewer.setSliceType(viewer.sliceTypeAxial);
    const own = { figure, frame, canvas, caption, viewer, overlays: [] };
    viewer.onLocationChange = (location) => {
      if (this.shown[0] !== own || !this.subject) return;
      this.onSlice(Math.floor(location.frac[2] * this.subject.depth));
    };
    return own;
  }

  async load(own, panel) {
    const [low, high] = this.manifest.intensity;
    const grey = { url: `${panel.path}.nii.gz`, colormap: "gray", cal_min: low, cal_max: high };
    own.overlays = Object.entries(panel.overlays || {});
    const maps = own.overlays.map(([name, path]) => {
      const overlay = { url: `${path}.nii.gz`, opacity: 0 };
      if (name === "lesion") return { ...overlay, colormap: "red", cal_min: 0.5, cal_max: 1 };
      const { high, signed } = this.manifest.overlays[name];
      const map = { ...overlay, colormap: "map", cal_min: high / 6, cal_max: high };
      if (!signed) return map;
      const below = { colormapNegative: "below", cal_minNeg: -high / 6, cal_maxNeg: -high };
      return { ...map, ...below, colormap: "above" };
    });
    own.frame.style.aspectRatio = this.subject.aspect;
    own.canvas.setAttribute("aria-label", panel.title);
    own.canvas.setAttribute("role", "img");
    own.caption.textContent = panel.title;
    await own.viewer.loadVolumes([grey, ...maps]);
    // In the pinned version, type 1: colours from 0 on, ever more transparent below cal_min.
    own.overlays.forEach(([name], i) => {
      if (name !== "lesion") own.viewer.volumes[i + 1].colormapType = 1;
    });
    own.viewer.updateGLVolume();
  }

  setSlice(index) {
    const share = (index + 0.5) / this.subject.depth;
    for (const { viewer } of this.shown) {
      viewer.scene.crosshairPos[2] = share;
      viewer.drawScene();
    }
  }

  setOverlay(name, opacity) {
    for (const { viewer, overlays } of this.shown) {
      overlays.forEach(([own], i) => viewer.setOpacity(i + 1, own === name ? Number(opacity) : 0));
    }
  }
}
