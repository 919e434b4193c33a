// A list for somebody, and what changes it: a user, a session of clicks, a query; with the reasons.
import { call } from '/console/api.js';
import { bars, button, card, dialog, el, empty, face, fill, guard, number, toast } from '/console/parts.js';
import { t } from '/console/words.js';

const SHOWN = 12;
const state = { user: null, session: [], keep: false, query: '', before: new Set() };

export function show(place) {
  const people = el('datalist', { id: 'people' });
  const name = el('input', { list: 'people', placeholder: t('whoHint'), 'aria-label': t('who'), value: state.user || '', autocomplete: 'off', onchange: () => choose(name.value.trim()) });
  const past = el('div', {}), clicks = el('div', {}), heading = el('h2', { class: 'grow' }), told = el('span', { class: 'soft small num' }), notes = el('div', { class: 'stack' }), list = el('div', {});
  const search = el('input', { type: 'search', placeholder: t('searchHint'), 'aria-label': t('search'), value: state.query });

  const choose = guard(async user => { state.user = (typeof user === 'string' && user) || null; name.value = state.user || ''; state.session = []; state.before = new Set(); search.value = state.query = ''; await refresh(); });
  const click = guard(async row => {
    state.query = search.value = '';
    if (state.keep) {
      await call('/v1/events', { events: [{ user_id: state.user || 'visitor', item_id: row.item_id }] });
      state.user ||= 'visitor';
      name.value = state.user;
      toast(t('stored'));
    } else state.session.push({ item_id: row.item_id, title: row.title });
    await refresh();
  });
  const refresh = async () => { await Promise.all([showPast(), fill(list, answer)]); showClicks(); };

  async function answer() {
    const began = performance.now();
    const found = state.query
      ? await call('/v1/search', { query: state.query, k: SHOWN, ...(state.user && { user_id: state.user }) })
      : await call('/v1/recommend', { k: SHOWN, explain: true, ...(state.user && { user_id: state.user }), ...(state.session.length && { session: state.session.map(one => ({ item_id: one.item_id })) }) });
    told.textContent = t('answered', found.items.length, (performance.now() - began).toFixed(0));
    heading.textContent = state.query ? t('found', state.query) : t('recommended', state.user || t('visitor'));
    notes.replaceChildren(...(found.degraded?.length ? [el('p', { class: 'note warn' }, t('degraded', found.degraded.join(', ')))] : []), ...(found.notes || []).map(words => el('p', { class: 'note' }, words)));
    const cards = found.items.map((row, at) => itemCard(row, at + 1, click));
    state.before = new Set(found.items.map(row => row.item_id));
    return cards.length ? el('ol', { class: 'items', onkeydown: walk }, cards) : empty(t('nothing'));
  }

  async function showPast() {
    const known = state.user ? await call('/v1/users/' + encodeURIComponent(state.user)).catch(error => { if (error.status === 404) return { history: [] }; throw error; }) : { history: [] };
    past.replaceChildren(known.history.length ? el('ol', { class: 'list' }, known.history.slice(0, 8).map(row => el('li', {}, el('span', { class: 'grow' }, row.title || row.item_id)))) : el('p', { class: 'soft small' }, t('noHistory')));
  }

  function showClicks() {
    clicks.replaceChildren(state.session.length
      ? el('div', { class: 'stack' }, el('ol', { class: 'list' }, state.session.map(row => el('li', {}, el('span', { class: 'grow' }, row.title || row.item_id)))), button(t('clear'), guard(async () => { state.session = []; await refresh(); }), 'line tight'))
      : el('p', { class: 'soft small' }, t('sessionEmpty')));
  }

  place.append(el('div', { class: 'split' },
    el('div', { class: 'stack' },
      card(t('who'), el('div', { class: 'stack' }, name, people, button(t('newcomer'), () => choose(''), 'line tight'))),
      card(t('session'), clicks, el('label', { class: 'check' }, el('input', { type: 'checkbox', checked: state.keep, onchange: event => { state.keep = event.target.checked; } }), t('store'))),
      card(t('history'), past)),
    el('div', { class: 'stack' },
      el('form', { class: 'bar', role: 'search', onsubmit: guard(async () => { state.query = search.value.trim(); await fill(list, answer); }) }, search, el('button', {}, t('search'))),
      el('div', { class: 'row' }, heading, told, button(t('whyNot'), () => askWhyNot(), 'line tight')), notes, list)));
  begin(people, choose, refresh);
}

async function begin(people, choose, refresh) {
  const found = await call('/v1/users?limit=200').catch(() => ({ users: [] }));
  people.replaceChildren(...found.users.map(user => el('option', { value: user.user_id }, `${user.user_id} (${user.events})`)));
  if (state.user === null && !state.session.length && found.users.length) await choose(found.users[0].user_id);
  else await refresh();
}

function itemCard(row, place, click) {
  const fresh = state.before.size && !state.before.has(row.item_id);
  return el('li', { class: fresh ? 'item new' : 'item' }, face(row, place),
    el('div', { class: 'body' }, el('div', { class: 'title' }, row.title || row.item_id), row.reason && el('div', { class: 'why' }, row.reason), el('div', {}, el('span', { class: 'tag' }, row.source))),
    el('div', { class: 'foot' }, el('button', { type: 'button', class: 'line tight', onclick: () => click(row), 'aria-label': `${t('click')}: ${row.title || row.item_id}` }, t('click')),
      el('button', { type: 'button', class: 'quiet tight', onclick: guard(() => tellWhy(row)), 'aria-label': `${t('why')}: ${row.title || row.item_id}` }, t('why'))));
}

// Arrow keys go from card to card.
function walk(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const cards = [...event.currentTarget.children], here = cards.findIndex(card => card.contains(document.activeElement));
  if (!step || here < 0) return;
  event.preventDefault();
  cards[(here + step + cards.length) % cards.length].querySelector('button').focus();
}

async function tellWhy(row) {
  const question = { k: SHOWN, ...(state.session.length && { session: state.session.map(one => ({ item_id: one.item_id })) }) };
  const told = await call('/v1/explain', { user_id: state.user || 'visitor', item_id: row.item_id, question });
  dialog(row.title || row.item_id, ...[row.reason && el('p', {}, row.reason), ...explained(told)].filter(Boolean));
}

function askWhyNot() {
  const search = el('input', { type: 'search', placeholder: t('searchHint'), 'aria-label': t('search') }), found = el('div', {});
  const look = guard(async () => {
    const answer = await call('/v1/search', { query: search.value, k: 8 });
    found.replaceChildren(answer.items.length ? el('ol', { class: 'list' }, answer.items.map(row => el('li', {}, el('button', { type: 'button', class: 'pick', onclick: guard(() => tellWhy(row)) }, row.title || row.item_id)))) : empty(t('nothing')));
  });
  dialog(t('whyNot'), el('p', { class: 'soft' }, t('whyNotHint')), el('form', { class: 'bar', onsubmit: look }, search, el('button', {}, t('search'))), found);
  search.focus();
}

const chances = told => el('div', { class: 'stack' }, el('h3', {}, t('chances')), bars(Object.entries(told).map(([name, value]) => ({ name, value, words: (100 * value).toFixed(1) + ' %' })), 1));
const moves = told => el('div', { class: 'stack' }, el('h3', {}, t('moves')), el('ul', {}, told.map(move => el('li', {}, t('movedBy', move.rule, move.before, move.after)))));

// The stage at which an item left the road, by which rule, and where it stood.
function verdict(told) {
  const list = told.list || {}, why = told.why_not;
  if (list.place) return el('p', {}, el('span', { class: 'tag good' }, t('place', list.place, list.k)));
  const words = why ? [t('stoppedAt', t('stage_' + why.stage), why.rule), why.rank && t('stoodAt', why.rank, why.of)] : [t('outranked')];
  return el('p', { class: 'row' }, el('span', { class: 'tag warn' }, t('notListed', list.k || SHOWN)), words.filter(Boolean).join(' '));
}

function explained(told) {
  const sources = Object.entries(told.channels || {}).filter(([, one]) => Math.abs(one.share) > 1e-4).sort((a, b) => Math.abs(b[1].share) - Math.abs(a[1].share));
  const features = Object.entries(told.features || {}).filter(([, value]) => value).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 12);
  return [verdict(told),
    el('div', { class: 'stack' }, el('h3', {}, t('sources')), bars(sources.map(([name, one]) => ({ name, value: one.share, words: `${number(one.share, 3)} · ${t('rank', one.rank + 1)}` })))),
    told.effects?.length ? el('div', { class: 'stack' }, el('h3', {}, t('effects')), bars(told.effects.slice(0, 8).map(one => ({ name: one.feature, value: one.effect, words: `${number(one.value, 3)}` })))) : null,
    told.ranker?.chances && Object.keys(told.ranker.chances).length ? chances(told.ranker.chances) : null,
    told.list?.moves?.length ? moves(told.list.moves) : null,
    features.length ? el('details', {}, el('summary', {}, t('features')), bars(features.map(([name, value]) => ({ name, value, words: number(value, 3) })))) : null];
}
