// Small plots in SVG: lines over time, and means with intervals.
const NS = 'http://www.w3.org/2000/svg';
export const COLOURS = ['#3b6cf0', '#e07b39', '#2a9d74', '#b5459b', '#8a8f3c'];
const svg = (name, attributes, ...children) => {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const nice = most => { const unit = 10 ** Math.floor(Math.log10(most || 1)); return [1, 2, 5, 10].map(step => step * unit).find(step => step >= most) || 1; };
const brief = value => (value >= 1000 ? Math.round(value / 100) / 10 + 'k' : String(Number(value.toPrecision(2))));

// series: [{name, values: [number | null, …]}], all of one length, the latest last.
export function lines(words, series, width = 460, height = 170) {
  const left = 36, bottom = 6, most = nice(Math.max(...series.flatMap(one => one.values.map(value => value ?? 0)), 0));
  const length = Math.max(series[0].values.length - 1, 1), x = at => left + ((width - left) * at) / length, y = value => 8 + (height - 8 - bottom) * (1 - value / most);
  const plot = svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'plot', role: 'img', 'aria-label': words });
  for (const share of [0, 0.5, 1]) {
    plot.append(svg('line', { x1: left, x2: width, y1: y(most * share), y2: y(most * share), class: 'grid' }), svg('text', { x: left - 6, y: y(most * share) + 4, 'text-anchor': 'end' }, brief(most * share)));
  }
  series.forEach((one, place) => {
    let path = '', pen = false;
    one.values.forEach((value, at) => { if (value === null || value === undefined) { pen = false; return; } path += `${pen ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}`; pen = true; });
    plot.append(svg('path', { d: path || 'M0 0', fill: 'none', stroke: COLOURS[place], 'stroke-width': 2, 'stroke-linejoin': 'round' }));
  });
  return plot;
}

// rows: [{name, mean, low, high, strong}]: one line each, the widest interval sets the scale.
export function intervals(words, rows, width = 640) {
  const left = 170, right = 60, step = 26, height = rows.length * step + 8, most = nice(Math.max(...rows.map(row => row.high ?? row.mean)));
  const x = value => left + ((width - left - right) * value) / most;
  const plot = svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'plot short', role: 'img', 'aria-label': words });
  rows.forEach((row, place) => {
    const middle = place * step + step / 2 + 4, colour = row.strong ? COLOURS[0] : '#8b95a5';
    plot.append(svg('text', { x: 0, y: middle + 4 }, row.name), svg('line', { x1: left, x2: width - right, y1: middle, y2: middle, class: 'grid' }));
    if (row.low !== undefined) plot.append(svg('line', { x1: x(row.low), x2: x(row.high), y1: middle, y2: middle, stroke: colour, 'stroke-width': 4, 'stroke-linecap': 'round', opacity: 0.45 }));
    plot.append(svg('circle', { cx: x(row.mean), cy: middle, r: 5, fill: colour }), svg('text', { x: width, y: middle + 4, 'text-anchor': 'end' }, row.mean.toFixed(4)));
  });
  return plot;
}
