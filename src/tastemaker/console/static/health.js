// The figures of the service as it runs: asked every two seconds, differences taken here.
import { text } from '/console/api.js';
import { bars, card, el, empty, number, sentence } from '/console/parts.js';
import { COLOURS, lines } from '/console/plot.js';
import { t } from '/console/words.js';

const SECONDS = 2, KEPT = 90;

// Prometheus' text format: [{name, labels, value}].
export function parse(words) {
  return words.split('\n').filter(line => line && line[0] !== '#').map(line => {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!found) return null;
    const labels = Object.fromEntries([...(found[2] || '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]));
    return { name: found[1], labels, value: Number(found[3].replace('+Inf', 'Infinity')) };
  }).filter(Boolean);
}
const sum = (rows, name, keep = () => true) => rows.filter(row => row.name === name && keep(row.labels)).reduce((total, row) => total + row.value, 0);

// The time below which a share of requests was answered, from two looks at a cumulative histogram, in seconds.
export function quantile(now, before, name, share, keep = () => true) {
  const at = rows => { const found = new Map(); for (const row of rows) if (row.name === name + '_bucket' && keep(row.labels)) { const edge = row.labels.le === '+Inf' ? Infinity : Number(row.labels.le); found.set(edge, (found.get(edge) || 0) + row.value); } return found; };
  const late = at(now), early = at(before), edges = [...late.keys()].sort((a, b) => a - b);
  const counts = edges.map(edge => late.get(edge) - (early.get(edge) || 0)), all = counts.at(-1) || 0;
  if (!all) return null;
  const place = counts.findIndex(count => count >= share * all), below = place ? counts[place - 1] : 0, from = place ? edges[place - 1] : 0;
  return edges[place] === Infinity ? from : from + ((edges[place] - from) * (share * all - below)) / Math.max(counts[place] - below, 1e-9);
}

export function show(place) {
  const tiles = el('div', { class: 'tiles' }), alerts = el('div', {}), plots = el('div', { class: 'plots' }), watched = el('div', { class: 'stack' }), routes = el('div', { class: 'wide', tabindex: 0 }), all = el('div', { class: 'wide', tabindex: 0 }), trouble = el('div', {});
  const looks = [], series = { rate: [], bad: [], p50: [], p99: [], degraded: [], taken: [], covered: [], lag: [], behind: [], drift: [] };
  let timer = null;

  async function look() {
    try {
      const rows = parse(await text('/metrics'));
      trouble.replaceChildren();
      looks.push({ at: performance.now() / 1000, rows });
      if (looks.length > 2) looks.splice(1, looks.length - 2);
      draw();
    } catch (error) { trouble.replaceChildren(el('p', { class: 'note bad', role: 'alert' }, sentence(error))); }
  }
  let last = null;
  function draw() {
    const first = looks[0], now = looks.at(-1), before = last || now;
    last = now;
    const span = Math.max(now.at - before.at, 1e-9), requests = rows => sum(rows, 'tastemaker_request_seconds_count'), failed = rows => sum(rows, 'tastemaker_request_seconds_count', labels => labels.status >= '500');
    const rate = before === now ? null : (requests(now.rows) - requests(before.rows)) / span;
    const push = (list, value) => { list.push(value); if (list.length > KEPT) list.shift(); };
    push(series.rate, rate); push(series.bad, before === now ? null : (failed(now.rows) - failed(before.rows)) / span);
    for (const [name, share] of [['p50', 0.5], ['p99', 0.99]]) { const value = quantile(now.rows, before.rows, 'tastemaker_request_seconds', share); push(series[name], value === null ? null : 1000 * value); }
    for (const [name, value] of Object.entries(health(now.rows, before.rows, requests(now.rows) - requests(before.rows)))) push(series[name], value);
    const count = requests(now.rows) - requests(first.rows), errors = failed(now.rows) - failed(first.rows), since = Math.max(now.at - first.at, 1e-9);
    const degraded = sum(now.rows, 'tastemaker_degraded_total') - sum(first.rows, 'tastemaker_degraded_total');
    const accepted = rows => sum(rows, 'tastemaker_events_total', labels => labels.result === 'accepted');
    const whole = share => { const value = quantile(now.rows, first.rows, 'tastemaker_request_seconds', share); return value === null ? '–' : number(1000 * value, 3) + ' ' + t('ms'); };
    tiles.replaceChildren(
      tile(t('rate'), rate === null ? '–' : number(rate, 3)), tile(t('p50'), whole(0.5)), tile(t('p99'), whole(0.99)),
      tile(t('errors'), count ? ((100 * errors) / count).toFixed(2) + ' %' : '–', errors ? 'bad' : ''),
      tile(t('degradedShare'), count ? ((100 * degraded) / count).toFixed(2) + ' %' : '–', degraded ? 'warn' : ''),
      tile(t('events'), number((accepted(now.rows) - accepted(first.rows)) / since, 3)), tile(t('index'), number(sum(now.rows, 'tastemaker_index_items'))));
    plots.replaceChildren(
      el('section', { class: 'card' }, el('h2', {}, t('overTime')), lines(t('overTime'), [{ values: pad(series.rate) }, { values: pad(series.bad) }]), legend([t('rate'), t('errors')])),
      el('section', { class: 'card' }, el('h2', {}, t('latency')), lines(t('latency'), [{ values: pad(series.p50) }, { values: pad(series.p99) }]), legend([t('p50'), t('p99')])),
      ...[['shares', ['degraded', 'taken', 'covered'], ['degradedShare', 'takenShare', 'covered']], ['freshness', ['lag', 'behind'], ['lag', 'behind']], ['drift', ['drift'], ['driftWorst']]].map(([title, names, words]) =>
        el('section', { class: 'card' }, el('h2', {}, t(title)), lines(t(title), names.map(name => ({ values: pad(series[name]) }))), legend(words.map(t)))));
    routes.replaceChildren(table(now.rows, first.rows));
    tellAlerts(now.rows);
    watched.replaceChildren(quality(now.rows), drift(now.rows));
    all.replaceChildren(figures(now.rows));
  }
  const pad = values => [...Array(KEPT - values.length).fill(null), ...values];

  function table(now, first) {
    const rows = now.filter(row => row.name === 'tastemaker_request_seconds_count').map(row => ({ ...row, new: row.value - sum(first, row.name, labels => labels.route === row.labels.route && labels.status === row.labels.status) })).filter(row => row.new > 0).sort((a, b) => b.new - a.new);
    if (!rows.length) return empty(t('quiet'));
    const time = (row, share) => { const value = quantile(now, first, 'tastemaker_request_seconds', share, labels => labels.route === row.labels.route && labels.status === row.labels.status); return value === null ? '–' : number(1000 * value, 3); };
    return el('table', {}, el('thead', {}, el('tr', {}, el('th', {}, t('route')), el('th', {}, t('status')), el('th', { class: 'n' }, t('count')), el('th', { class: 'n' }, `${t('p50')}, ${t('ms')}`), el('th', { class: 'n' }, `${t('p99')}, ${t('ms')}`))),
      el('tbody', {}, rows.map(row => el('tr', {}, el('td', {}, row.labels.route), el('td', {}, el('span', { class: row.labels.status < '400' ? 'tag good' : row.labels.status < '500' ? 'tag warn' : 'tag bad' }, row.labels.status)), el('td', { class: 'n' }, number(row.new)), el('td', { class: 'n' }, time(row, 0.5)), el('td', { class: 'n' }, time(row, 0.99))))));
  }
  look();
  timer = setInterval(() => { if (!document.hidden) look(); }, SECONDS * 1000);
  function tellAlerts(rows) {
    const firing = rows.filter(row => row.name === 'tastemaker_alert_firing' && row.value);
    alerts.replaceChildren(card(t('alerts'), firing.length ? el('ul', { class: 'list' }, firing.map(row => el('li', {}, el('span', { class: row.labels.severity === 'page' ? 'tag bad' : 'tag warn' }, row.labels.alert), el('a', { class: 'grow', href: `/console/runbooks/${row.labels.alert}.md`, target: '_blank' }, t('runbook'))))) : el('p', { class: 'soft' }, t('noAlerts'))));
  }
  place.append(el('div', { class: 'stack' }, trouble, tiles, alerts, plots, watched, card(t('routes'), routes), el('p', { class: 'soft small' }, t('watching')), el('details', { class: 'card' }, el('summary', {}, t('figures')), all)));
  return () => clearInterval(timer);
}

// What is drawn over time besides requests: shares of the last two seconds and of the window that is watched, lags in seconds and events, and the largest drift in thresholds.
function health(now, before, asked) {
  const since = name => sum(now, name) - sum(before, name), there = name => now.some(row => row.name === name), value = name => (there(name) ? sum(now, name) : null);
  const limits = new Map(now.filter(row => row.name === 'tastemaker_drift_threshold').map(row => [row.labels.check, row.value]));
  const away = now.filter(row => row.name === 'tastemaker_drift_statistic').map(row => row.value / limits.get(row.labels.check)).filter(Number.isFinite);
  const shown = sum(now, 'tastemaker_sampled_impressions_total');
  return { degraded: asked ? since('tastemaker_degraded_total') / asked : null, taken: shown ? sum(now, 'tastemaker_clicks_total') / shown : null, covered: value('tastemaker_catalogue_coverage_ratio'),
    lag: value('tastemaker_feature_lag_seconds'), behind: value('tastemaker_events_behind'), drift: away.length ? Math.max(...away) : null };
}

const tile = (words, value, kind = '') => el('div', { class: `tile ${kind}` }, el('div', { class: 'soft small' }, words), el('div', { class: 'value' }, value));
const legend = names => el('div', { class: 'row small soft' }, names.map((name, at) => el('span', {}, el('span', { class: 'key', style: { background: COLOURS[at] } }), name)));
const label = row => Object.entries(row.labels).map(([key, value]) => `${key}=${value}`).join(', ');

// What is seen in the sampled lists: taken and shown by source, coverage, calibration and so on.
function quality(rows) {
  const by = name => { const found = new Map(); for (const row of rows) if (row.name === name) found.set(row.labels.source, (found.get(row.labels.source) || 0) + row.value); return found; };
  const shown = by('tastemaker_sampled_impressions_total'), taken = by('tastemaker_clicks_total');
  const ratios = rows.filter(row => /_ratio$/.test(row.name));
  if (!shown.size && !ratios.length) return '';
  const lines = [...shown].sort((a, b) => b[1] - a[1]).map(([source, count]) => ({ name: source, value: (taken.get(source) || 0) / count, words: `${(100 * (taken.get(source) || 0) / count).toFixed(1)} % · ${number(count)}` }));
  return card(t('quality'), lines.length ? el('div', {}, el('h3', {}, t('bySource')), bars(lines)) : '', ratios.length ? el('details', {}, el('summary', {}, t('ratios')), figures(ratios)) : '');
}

// Every distance from the reference, and what chance alone reaches.
function drift(rows) {
  const limits = new Map(rows.filter(row => row.name === 'tastemaker_drift_threshold').map(row => [row.labels.check, row.value]));
  const seen = rows.filter(row => row.name === 'tastemaker_drift_statistic').sort((a, b) => b.value / limits.get(b.labels.check) - a.value / limits.get(a.labels.check));
  if (!seen.length) return '';
  return card(t('drift'), el('div', { class: 'wide', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, el('th', {}, t('figure')), el('th', { class: 'n' }, t('value')), el('th', { class: 'n' }, t('threshold')), el('th', {}, t('alerts')))),
    el('tbody', {}, seen.map(row => { const limit = limits.get(row.labels.check); return el('tr', {}, el('td', {}, row.labels.check), el('td', { class: 'n' }, number(row.value, 3)), el('td', { class: 'n' }, number(limit, 3)), el('td', {}, row.value > limit ? el('span', { class: 'tag bad' }, t('firing')) : '')); })))));
}

function figures(rows) {
  const shown = rows.filter(row => row.name.startsWith('tastemaker_') && !/_bucket$|_created$/.test(row.name));
  return el('table', {}, el('tbody', {}, shown.map(row => el('tr', {}, el('td', { class: 'mono' }, row.name.replace('tastemaker_', '') + (label(row) ? ` {${label(row)}}` : '')), el('td', { class: 'n' }, number(row.value))))));
}
