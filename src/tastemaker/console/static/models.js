// Bundles: what they are, how good, how large; release and back.
import { call } from '/console/api.js';
import { button, bytes, card, confirm, dialog, el, empty, fill, guard, number, toast } from '/console/parts.js';
import { intervals } from '/console/plot.js';
import { t } from '/console/words.js';

const STAGES = ['candidate', 'shadow', 'canary', 'live', 'previous'];
const IN_STAGES = { shadow: 1000, canary: [0.01, 0.05, 0.25] };
const KIND = { live: 'tag good', candidate: 'tag', previous: 'tag plain', shadow: 'tag', canary: 'tag warn' };

export function show(place) {
  const inside = el('div', { class: 'stack' });
  const refresh = () => fill(inside, async () => draw(await call('/v1/bundles')));

  function draw(told) {
    const stages = told.stages;
    const back = !told.trial && stages.previous && button(t('rollback'), () => confirm(t('rollback'), t('rollbackAsk', stages.previous), async () => { await call('/v1/bundles:rollback', undefined, 'POST'); toast(t('released', stages.previous)); await refresh(); }, t('rollback')), 'line tight');
    return [
      el('section', { class: 'card' }, el('div', { class: 'row' }, el('h2', { class: 'grow' }, t('stages')), back),
        el('div', { class: 'rail' }, STAGES.map(name => el('div', { class: `stop ${stages[name] ? 'full' : ''} ${name === 'live' ? 'live' : ''}` }, el('h3', {}, t(name)), el('div', { class: stages[name] ? 'mono' : 'soft' }, stages[name] || t('none')))))),
      told.trial ? card(t('onTrial'), trial(told.trial, stages.live)) : null,
      card(t('bundles'), table(told)),
      card(t('record'), record(told.record || [])),
      card(t('evaluation'), evaluation(told.evaluation)),
      card(t('compression'), compression(told.compression))].filter(Boolean);
  }

  function trial(one, live) {
    const now = one.standing, end = () => confirm(t('endTrial'), t('endTrialAsk', one.version, live), async () => { await call('/v1/bundles:rollback', undefined, 'POST'); toast(t('released', live)); await refresh(); }, t('endTrial'), 'danger');
    const reached = now ? Math.min(1, now.lists / Math.max(1, now.wanted)) : 0;
    return el('div', { class: 'stack' },
      el('div', { class: 'row' }, el('span', { class: KIND[one.stage] }, one.stage === 'canary' ? `${t('canary')} ${+(100 * one.share).toFixed(2)} %` : t('shadow')), el('span', { class: 'mono grow' }, one.version), button(t('refresh'), refresh, 'line tight'), button(t('endTrial'), end, 'line tight')),
      el('progress', { max: 1, value: reached, 'aria-label': t('onTrial') }),
      el('p', { class: 'soft small' }, now ? t('trialLists', number(now.lists), number(now.wanted)) : t('trialWaits')),
      now ? el('ul', { class: 'list small' }, now.words.map(words => el('li', {}, words))) : null);
  }

  const ask = version => confirm(t('release'), t('releaseAsk', version), () => release(version, false), t('release'));
  const askInStages = version => confirm(t('inStages'), t('inStagesAsk', version), () => release(version, false, IN_STAGES), t('inStages'));
  async function release(version, force, stages = {}) {
    toast(t('examining'));
    let done;
    try { done = await call('/v1/bundles:release', { version, force, ...stages }); } catch (error) {
      if (error.status !== 409) throw error;
      const box = dialog(t('failed'), el('p', { class: 'note warn' }, error.message), el('div', { class: 'row' }, button(t('anyway'), guard(async () => { box.close(); await release(version, true, stages); }), 'danger'), button(t('cancel'), () => box.close(), 'line')));
      return;
    }
    toast(done.trial ? t('begun', version) : t('released', version));
    await refresh();
  }

  function table(told) {
    if (!told.bundles.length) return empty(t('none'));
    const head = [t('version'), t('stage'), t('made'), ['NDCG@10'], [t('items')], [t('size')], t('release')];
    return el('div', { class: 'wide', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, head.map(words => (Array.isArray(words) ? el('th', { class: 'n' }, words[0]) : el('th', {}, words))))),
      el('tbody', {}, told.bundles.map(one => el('tr', {},
        el('td', {}, el('div', { class: 'mono' }, one.version), one.parents?.length ? el('div', { class: 'soft small' }, t('from', one.parents.join(', '))) : null),
        el('td', {}, one.damaged ? el('span', { class: 'tag bad', title: one.damaged }, t('damaged')) : one.stage ? el('span', { class: KIND[one.stage] }, t(one.stage)) : ''),
        el('td', { class: 'small' }, one.created ? new Date(one.created).toLocaleString() : '–'),
        el('td', { class: 'n' }, one.metrics?.validation_ndcg_fusion?.toFixed?.(4) ?? '–'), el('td', { class: 'n' }, number(one.items)), el('td', { class: 'n' }, one.bytes ? bytes(one.bytes) : '–'),
        el('td', {}, one.stage === 'live' || one.damaged ? '' : el('div', { class: 'row' }, button(t('release'), () => ask(one.version), 'line tight'), told.trial ? null : button(t('inStages'), () => askInStages(one.version), 'line tight'))))))));
  }
  refresh();
  place.append(inside);
}

function record(lines) {
  if (!lines.length) return el('p', { class: 'soft' }, t('none'));
  return el('ul', { class: 'list' }, lines.map(line => el('li', {}, el('span', { class: ['refused', 'aborted'].includes(line.action) ? 'tag warn' : 'tag good' }, line.action === 'canary' ? `${t('canary')} ${+(100 * line.share).toFixed(2)} %` : t(line.action)), el('span', { class: 'mono' }, line.version),
    el('span', { class: 'grow small' }, [line.why, ...(line.against || [])].filter(Boolean).join(' · ')), el('span', { class: 'soft small' }, `${line.who} · ${new Date(1000 * line.time).toLocaleString()}`))));
}

function evaluation(told) {
  const rows = Object.entries(told?.recommenders || {}).map(([name, one]) => ({ name, strong: name === 'Tastemaker', ...one.metrics['NDCG@10'] })).filter(row => row.mean !== undefined).sort((a, b) => b.mean - a.mean);
  if (!rows.length) return el('p', { class: 'soft' }, t('noEvaluation'));
  return el('div', { class: 'stack' }, el('p', { class: 'soft small' }, `NDCG@10 · ${told.protocol}`), intervals('NDCG@10', rows));
}

function compression(told) {
  if (!told?.steps?.length) return el('p', { class: 'soft' }, t('noCompression'));
  const line = (words, figures, verdict, change) => el('tr', {}, el('td', {}, words), el('td', { class: 'n' }, figures ? bytes(figures.bytes) : '–'), el('td', { class: 'n' }, figures ? number(figures.texts, 3) : '–'), el('td', { class: 'n' }, figures?.p50 ? number(figures.p50, 3) : '–'), el('td', { class: 'n' }, change ? `${(100 * change.mean / told.steps[0].verdict.before).toFixed(2)} % [${(100 * change.low / told.steps[0].verdict.before).toFixed(2)}, ${(100 * change.high / told.steps[0].verdict.before).toFixed(2)}]` : ''), el('td', {}, verdict));
  return el('div', { class: 'wide', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, el('th', {}, t('step')), el('th', { class: 'n' }, t('size')), el('th', { class: 'n' }, t('texts')), el('th', { class: 'n' }, `${t('p50')}, ${t('ms')}`), el('th', { class: 'n' }, t('change')), el('th', {}, t('verdict')))),
    el('tbody', {}, line(told.parent, told.before, ''), told.steps.map(step => line(step.words || step.step, step.figures, el('span', { class: step.state === 'accepted' ? 'tag good' : 'tag plain', title: step.why }, step.state === 'accepted' ? t('accepted') : t('refused')), step.verdict?.change)))));
}
