"use strict";
// Panels of PNG strips, whose slices stand side by side: they need nothing but the browser.
class StripPanels {
  constructor(box, manifest) {
    this.box = box;
    this.manifest = manifest;
    this.strips = [];
    this.overlay = null;
  }

  get name() {
    return "slice strips";
  }

  count(subject) {
    return subject.slices.length;
  }

  first(subject) {
    return subject.shown;
  }

  // Where slice `index` lies in the subject's cropped volume.
  depth(subject, index) {
    return subject.slices[index];
  }

  async show(subject, panels) {
    this.subject = subject;
    this.strips = [];
    this.overlay = null;
    const figures = panels.map((panel) => {
      const figure = document.createElement("figure");
      const strip = this.strip(panel.path, panel.title);
      figure.append(strip, panelTitle(panel.title));
      if (panel.overlays) {
        this.overlays = panel.overlays;
        this.overlay = strip.appendChild(this.strip(null, ""));
      }
      return figure;
    });
    this.box.replaceChildren(...figures);
  }

  strip(path, label) {
    const element = document.createElement("div");
    element.className = "strip";
    element.style.aspectRatio = this.subject.aspect;
    element.style.backgroundSize = `${100 * this.count(this.subject)}% 100%`;
    if (path) {
      element.style.backgroundImage = `url("${path}.png")`;
      element.setAttribute("role", "img");
      element.setAttribute("aria-label", label);
    }
    this.strips.push(element);
    return element;
  }

  setSlice(index) {
    const steps = Math.max(this.count(this.subject) - 1, 1);
    for (const strip of this.strips) strip.style.backgroundPosition = `${(100 * index) / steps}% 0`;
  }

  setOverlay(name, opacity) {
    if (!this.overlay) return;
    const path = this.overlays[name];
    this.overlay.style.backgroundImage = path ? `url("${path}.png")` : "none";
    this.overlay.style.opacity = opacity;
  }
}

function panelTitle(text) {
  const caption = document.createElement("figcaption");
  caption.textContent = text;
  return caption;
}
