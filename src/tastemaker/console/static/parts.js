// Pieces that every panel is made of. Texts go in as text, never as HTML.
import { t } from '/console/words.js';
import { item } from '/console/api.js';

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'style') for (const [property, set] of Object.entries(value)) node.style.setProperty(property, set);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat(3).filter(child => child !== undefined && child !== null && child !== false));
  return node;
}

export const empty = words => el('p', { class: 'empty' }, words);
export const card = (title, ...inside) => el('section', { class: 'card' }, title && el('h2', {}, title), ...inside);
export const field = (words, input) => el('label', {}, words, input);
export const button = (words, act, kind = '') => el('button', { type: 'button', class: kind, onclick: act }, words);
export const number = (value, digits = 4) => (value === null || value === undefined ? '–' : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString() : String(Number(value.toPrecision(digits))));
export const bytes = value => (value >= 1e9 ? (value / 1e9).toFixed(2) + ' GB' : value >= 1e6 ? (value / 1e6).toFixed(1) + ' MB' : (value / 1e3).toFixed(0) + ' kB');

export function toast(words, bad = false) {
  const note = el('div', { class: bad ? 'toast bad' : 'toast' }, words);
  document.getElementById('toasts').append(note);
  setTimeout(() => note.remove(), bad ? 9000 : 4000);
}

export const sentence = error => (error instanceof TypeError ? t('unreachable') : error.status === 403 ? t('needAdmin') : error.message);

// What a handler throws is told, not swallowed.
export const guard = act => async event => {
  event?.preventDefault?.();
  try { await act(event); } catch (error) { toast(sentence(error), true); }
};

// Fills a place with what `make` gives, or with the reason why it can't and a way to try again.
export async function fill(place, make) {
  place.classList.add('busy');
  try { place.replaceChildren(...[await make()].flat()); } catch (error) {
    place.replaceChildren(el('div', { class: 'note bad row', role: 'alert' }, el('span', { class: 'grow' }, sentence(error)), button(t('again'), () => fill(place, make), 'line tight')));
  }
  place.classList.remove('busy');
}

export function dialog(title, ...inside) {
  const box = document.getElementById('dialog');
  box.replaceChildren(
    el('div', { class: 'head' }, el('h2', { id: 'dialog-title', class: 'grow' }, title), button(t('close'), () => box.close(), 'line tight')),
    el('div', { class: 'inside' }, ...inside));
  if (!box.open) box.showModal();
  return box;
}

export function confirm(title, words, act, yes, kind = '') {
  const box = dialog(title, el('p', {}, words), el('div', { class: 'row' }, button(yes, guard(async () => { box.close(); await act(); }), kind), button(t('cancel'), () => box.close(), 'line')));
}

const hue = words => [...words].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
// A picture of an item: its own where it has one, else a tile with its letters.
export function face(row, place) {
  const title = row.title || row.item_id;
  const tile = el('div', { class: 'face', style: { '--hue': hue(row.item_id) } }, el('span', { 'aria-hidden': 'true' }, [...title].slice(0, 2).join('')), place && el('span', { class: 'place' }, String(place)));
  item(row.item_id).then(stored => {
    if (/^https?:/.test(stored?.image || '')) tile.append(el('img', { src: stored.image, alt: '', loading: 'lazy', onerror: event => event.target.remove() }));
  });
  return tile;
}

export function bars(rows, most = Math.max(...rows.map(row => Math.abs(row.value)), 1e-9)) {
  return el('div', {}, rows.map(row => el('div', { class: 'bar-line' }, el('span', { title: row.name }, row.name),
    el('div', { class: 'track' }, el('div', { class: row.value < 0 ? 'fill minus' : 'fill', style: { width: (100 * Math.abs(row.value)) / most + '%' } })), el('span', { class: 'num soft small' }, row.words))));
}
