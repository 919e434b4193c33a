// The reports that the verbs have written, as they are.
import { call } from '/console/api.js';
import { button, el, empty, fill, guard } from '/console/parts.js';
import { t } from '/console/words.js';

const FIRST = ['profile', 'import', 'features', 'report', 'compression'];

export function show(place) {
  const tabs = el('div', { class: 'row', role: 'tablist', 'aria-label': t('reports') }), frame = el('div', {});
  const open = name => fill(frame, async () => {
    const told = await call('/v1/reports/' + encodeURIComponent(name));
    tabs.querySelectorAll('button').forEach(tab => tab.setAttribute('aria-selected', String(tab.dataset.name === name)));
    const page = el('iframe', { sandbox: '', title: t(name) });
    page.srcdoc = told.html;
    return page;
  });
  const body = el('div', { class: 'stack' }, tabs, frame);
  place.append(body);
  fill(frame, async () => {
    const found = (await call('/v1/reports')).reports.sort((a, b) => order(a.name) - order(b.name));
    if (!found.length) return empty(t('noReports'));
    tabs.replaceChildren(...found.map(one => el('button', { type: 'button', role: 'tab', 'aria-selected': 'false', class: 'line tight', 'data-name': one.name, title: t('made_', new Date(1000 * one.made).toLocaleString()), onclick: () => open(one.name) }, t(one.name))));
    setTimeout(() => open(found[0].name));
    return empty(t('loading'));
  });
}

const order = name => (FIRST.indexOf(name) + 1 || FIRST.length + 1);
