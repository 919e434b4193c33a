// One way to ask the service; an error becomes an Error with the service's own sentence.
const headers = () => (sessionStorage.apiKey ? { 'x-api-key': sessionStorage.apiKey } : {});
export const unlock = new EventTarget();

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.status === 401) unlock.dispatchEvent(new Event('locked'));
  return response;
}

export async function call(path, body, method) {
  const options = body === undefined
    ? { method: method || 'GET', headers: headers() }
    : { method: method || 'POST', headers: { 'content-type': 'application/json', ...headers() }, body: JSON.stringify(body) };
  const response = await ask(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.detail || String(response.status)), { status: response.status });
  return answer;
}

export async function text(path) {
  const response = await ask(path, { headers: headers() });
  if (!response.ok) throw Object.assign(new Error(String(response.status)), { status: response.status });
  return response.text();
}

const rows = new Map();
// An item as it is stored, remembered for this visit; null where it is not in the journal.
export function item(id) {
  if (!rows.has(id)) rows.set(id, call('/v1/items/' + encodeURIComponent(id)).catch(() => null));
  return rows.get(id);
}
export const forget = id => rows.delete(id);
