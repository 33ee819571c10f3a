"use strict";
// What the page's scripts share: the theme's colours, and JSON that stands in the page.
const Report = {
  // Okabe and Ito's colours, in the order that keeps neighbours apart on each background.
  palettes: {
    light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07B00", "#56B4E9", "#555555", "#8F6F00"],
    dark: ["#56B4E9", "#E69F00", "#2BC79A", "#CC79A7", "#F0E442", "#FF8A4C", "#BBBBBB", "#7FA8FF"],
  },
  dark: window.matchMedia("(prefers-color-scheme: dark)"),

  colour(index) {
    const palette = this.palettes[this.dark.matches ? "dark" : "light"];
    return palette[index % palette.length];
  },

  // Value of a custom property of report.css, such as --ink.
  style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  },

  // The JSON that the first script element in `element` holds.
  json(element) {
    return JSON.parse(element.querySelector('script[type="application/json"]').textContent);
  },

  fill(select, labels) {
    select.replaceChildren(...labels.map((label, index) => new Option(label, String(index))));
  },
};
