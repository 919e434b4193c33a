// The API's own document as a page: each route with what goes in and what comes out.
import { el } from '/console/parts.js';

const list = document.getElementById('list');
const brief = (spec, node, depth) => node.$ref || node.properties ? resolve(spec, node, depth)
  : node.anyOf ? node.anyOf.map(one => brief(spec, one, depth)) : node.type === 'array' ? [node.items ? brief(spec, node.items, depth + 1) : 'any'] : node.type || 'any';
const resolve = (spec, node, depth = 0) => {
  if (!node || depth > 4) return '…';
  if (node.$ref) return resolve(spec, spec.components.schemas[node.$ref.split('/').pop()], depth + 1);
  return node.properties ? Object.fromEntries(Object.entries(node.properties).map(([name, one]) => [name, brief(spec, one, depth + 1)])) : brief(spec, node, depth);
};

function told(spec, path, method, operation) {
  const body = operation.requestBody?.content['application/json'].schema, good = Object.keys(operation.responses)[0], answer = operation.responses[good].content?.['application/json'].schema;
  const lines = [operation.description];
  if (operation.parameters) lines.push('parameters: ' + operation.parameters.map(one => `${one.name} (${one.in})`).join(', '));
  if (body) lines.push('request\n' + JSON.stringify(resolve(spec, body), null, 1));
  if (answer) lines.push(`answer ${good}\n` + JSON.stringify(resolve(spec, answer), null, 1));
  lines.push('problems: ' + Object.keys(operation.responses).filter(status => status[0] > '3').join(', '));
  return el('details', { class: 'card' }, el('summary', {}, el('b', {}, method.toUpperCase() + ' '), el('code', { class: 'mono' }, path), ' ', el('span', { class: 'soft' }, operation.summary)), el('pre', { class: 'wide small' }, lines.join('\n\n')));
}

fetch('/openapi.json').then(answer => answer.json()).then(spec => {
  list.replaceChildren(...Object.entries(spec.paths).flatMap(([path, operations]) => Object.entries(operations).map(([method, operation]) => told(spec, path, method, operation))));
}).catch(error => { list.textContent = 'The document could not be loaded: ' + error; });
