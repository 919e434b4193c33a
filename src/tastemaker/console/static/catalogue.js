// Items: found, looked at, added and deleted; with those like it and the people who would get it.
import { call, forget, item } from '/console/api.js';
import { button, card, confirm, el, empty, field, fill, guard, toast } from '/console/parts.js';
import { t } from '/console/words.js';

export function show(place) {
  const list = el('div', {}), detail = el('div', { class: 'stack' }), search = el('input', { type: 'search', placeholder: t('searchHint'), 'aria-label': t('search') });
  let chosen = null;
  const find = () => fill(list, async () => {
    const query = search.value.trim();
    const rows = (query ? await call('/v1/search', { query, k: 30 }) : await call('/v1/items?limit=30')).items;
    return rows.length ? el('ol', { class: 'list' }, rows.map(row => el('li', {}, el('button', { type: 'button', class: 'pick', onclick: event => mark(event, row) }, row.title || row.item_id)))) : empty(t('nothing'));
  });
  const mark = (event, row) => {
    list.querySelectorAll('[aria-current]').forEach(node => node.removeAttribute('aria-current'));
    event.currentTarget.parentNode.setAttribute('aria-current', 'true');
    look(row.item_id);
  };
  const look = id => { chosen = id; detail.replaceChildren(...parts(id)); };
  const parts = id => {
    const facts = el('div', {}), people = el('div', {}), near = el('div', {});
    fill(facts, () => told(id)); fill(people, () => audience(id)); fill(near, () => similar(id));
    return [el('section', { class: 'card' }, facts), card(t('audience'), people), card(t('similar'), near)];
  };

  async function told(id) {
    forget(id);
    const row = (await item(id)) || { item_id: id };
    const lines = [['id', row.item_id], [t('text'), row.text], [t('categories'), (row.categories || []).join(', ')], [t('price'), row.price], ...Object.entries(row.extra || {})].filter(([, value]) => value !== null && value !== undefined && value !== '');
    return [el('div', { class: 'row' }, el('h2', { class: 'grow' }, row.title || id), row.hidden && el('span', { class: 'tag warn' }, t('hidden')),
      button(t('remove'), () => confirm(t('remove'), t('removeAsk', row.title || id), async () => { await call('/v1/items/' + encodeURIComponent(id), undefined, 'DELETE'); forget(id); toast(t('removed')); detail.replaceChildren(empty(t('choose'))); await find(); }, t('remove'), 'danger'), 'danger tight')),
    el('dl', { class: 'facts' }, lines.map(([name, value]) => [el('dt', {}, name), el('dd', {}, String(value))]))];
  }

  async function audience(id) {
    const answer = await call(`/v1/items/${encodeURIComponent(id)}/audience?k=24`);
    if (!answer.users.length) return el('p', { class: 'soft' }, t('nobody', answer.asked));
    return [el('p', { class: 'soft small' }, t('ofUsers', answer.asked)), el('div', { class: 'row' }, answer.users.map(user => el('span', { class: 'tag' }, `${user.user_id} · ${t('rank', user.rank)}`)))];
  }

  async function similar(id) {
    const answer = await call(`/v1/items/${encodeURIComponent(id)}/similar?k=8`);
    return answer.items.length ? el('ol', { class: 'list' }, answer.items.map(row => el('li', {}, el('button', { type: 'button', class: 'pick', onclick: () => look(row.item_id) }, row.title || row.item_id), el('span', { class: 'soft small num' }, row.score.toFixed(3))))) : empty(t('nothing'));
  }

  const inputs = { title: el('input', { required: true }), text: el('textarea', {}), categories: el('input', {}), price: el('input', { type: 'number', min: 0, step: 'any' }), image: el('input', { type: 'url' }) };
  const add = guard(async event => {
    const id = 'new-' + Date.now().toString(36), began = performance.now(), form = event.currentTarget;
    const body = { title: inputs.title.value.trim(), text: inputs.text.value.trim() || null, categories: inputs.categories.value.split(/[,，]/).map(word => word.trim()).filter(Boolean), price: inputs.price.value === '' ? null : Number(inputs.price.value), image: inputs.image.value || null };
    await call('/v1/items/' + id, body, 'PUT');
    const who = await call(`/v1/items/${id}/audience?k=200`).catch(() => null);
    if (who) toast(t('added', who.users.length, who.asked, ((performance.now() - began) / 1000).toFixed(2)));
    form.reset(); form.closest('details').open = false; search.value = body.title;
    look(id); await find();
  });

  detail.append(empty(t('choose')));
  place.append(el('div', { class: 'split' },
    el('div', { class: 'stack' },
      el('form', { class: 'bar', role: 'search', onsubmit: guard(find) }, search, el('button', {}, t('search'))),
      el('details', { class: 'card' }, el('summary', {}, t('add')), el('form', { class: 'stack', onsubmit: add }, Object.entries(inputs).map(([name, input]) => field(t(name), input)), el('button', {}, t('put')))),
      card(t('items'), list)),
    detail));
  find();
}
