// The shell: which panel is shown, in which language and light, and the door where a key is needed.
import { call, unlock } from '/console/api.js';
import { button, dialog, el, field, guard } from '/console/parts.js';
import { speak, speaks, t } from '/console/words.js';
import * as attempt from '/console/try.js';
import * as catalogue from '/console/catalogue.js';
import * as health from '/console/health.js';
import * as models from '/console/models.js';
import * as data from '/console/data.js';

const PANELS = { try: attempt, catalogue, health, models, data };
const main = document.getElementById('main');
let leave = null;

const wanted = () => { const name = location.hash.slice(1).split('/')[0]; return name in PANELS ? name : 'try'; };

function show() {
  const name = wanted();
  leave?.();
  document.documentElement.lang = speaks();
  document.title = `${t(name)} · Tastemaker`;
  document.getElementById('nav').replaceChildren(...Object.keys(PANELS).map(key => el('a', { href: '#' + key, 'aria-current': key === name ? 'page' : null }, t(key))));
  document.querySelectorAll('[data-t]').forEach(node => { node.textContent = t(node.dataset.t); });
  document.getElementById('language').textContent = t('other');
  document.getElementById('theme').textContent = t(localStorage.theme || 'auto');
  document.getElementById('theme').setAttribute('aria-label', t('theme', t(localStorage.theme || 'auto')));
  const place = el('div', {});
  main.replaceChildren(place);
  leave = PANELS[name].show(place) || null;
}

async function tellModel() {
  const chip = document.getElementById('model');
  try { const told = await call('/readyz'); chip.textContent = `${t('bundle')} ${told.model_version}`; chip.hidden = false; } catch { chip.hidden = true; }
}

function dress() {
  if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;
  else delete document.documentElement.dataset.theme;
}

unlock.addEventListener('locked', () => {
  if (document.getElementById('dialog').open) return;
  const key = el('input', { type: 'password', autocomplete: 'off', required: true });
  const enter = event => { event.preventDefault(); sessionStorage.apiKey = key.value.trim(); document.getElementById('dialog').close(); show(); };
  dialog(t('door'), el('p', { class: 'soft' }, t('doorWords')), el('form', { class: 'stack', onsubmit: enter }, field(t('door'), key), el('button', {}, t('enter'))));
  key.focus();
});

document.getElementById('language').onclick = () => { speak(speaks() === 'en' ? 'zh' : 'en'); show(); tellModel(); };
document.getElementById('theme').onclick = () => {
  const next = { auto: 'light', light: 'dark', dark: '' }[localStorage.theme || 'auto'];
  if (next) localStorage.theme = next; else localStorage.removeItem('theme');
  dress(); show();
};
document.addEventListener('keydown', event => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
  const search = document.querySelector('[type=search]');
  if (search) { event.preventDefault(); search.focus(); }
});
window.addEventListener('hashchange', show);
const given = new URLSearchParams(location.hash.slice(1)).get('key');
if (given) { sessionStorage.apiKey = given; history.replaceState(null, '', location.pathname); }
dress(); show(); tellModel();
setInterval(tellModel, 10000);
