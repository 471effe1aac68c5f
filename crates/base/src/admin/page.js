// Asks the base once a second and shows what changed. Whatever comes from outside is set as text, never as markup.
'use strict';
const $ = id => document.getElementById(id);
const KEPT = 120;
const history = { udp: [], tcp: [] };
let before = null, answers = 0;

const number = n => n >= 1e9 ? (n / 1e9).toFixed(1) + ' G' : n >= 1e6 ? (n / 1e6).toFixed(1) + ' M' : n >= 1e4 ? (n / 1e3).toFixed(1) + ' k' : String(Math.round(n));
const time = s => s >= 86400 ? Math.floor(s / 86400) + ' d ' + Math.floor(s % 86400 / 3600) + ' h' : s >= 3600 ? Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min' : s >= 60 ? Math.floor(s / 60) + ' min' : s + ' s';

function cells(row, ...values) {
  for (const [text, kind] of values) {
    const cell = row.insertCell();
    cell.textContent = text;
    if (kind) cell.className = kind;
  }
}

function tiles(now, rate) {
  const all = [
    ['devices', number(now.devices.udp + now.devices.tcp)],
    ['of them on UDP', number(now.devices.udp)],
    ['registrations / s', number(rate('registrations'))],
    ['refused / s', number(rate('refused'))],
    ['bytes relayed / s', number(rate('bytes_udp') + rate('bytes_tcp'))],
    ['signatures / s', number(rate('verifications'))],
    ['not registered yet', number(now.unfinished)],
    ['waiting for devices', number(now.queues.outgoing_bytes) + 'B'],
    ['memory', number(now.memory.used) + 'B'],
  ];
  $('tiles').replaceChildren(...all.map(([what, value]) => {
    const tile = document.createElement('div'), figure = document.createElement('b');
    tile.className = 'tile';
    figure.textContent = value;
    tile.append(figure, what);
    return tile;
  }));
}

function graph(rate) {
  let most = 1;
  for (const path of ['udp', 'tcp']) {
    history[path].push(rate('messages_' + path));
    if (history[path].length > KEPT) history[path].shift();
    most = Math.max(most, ...history[path]);
  }
  for (const path of ['udp', 'tcp']) {
    const first = KEPT - history[path].length;
    $(path).setAttribute('points', history[path].map((n, at) => ((first + at) * 600 / (KEPT - 1)).toFixed(1) + ',' + (118 - 114 * n / most).toFixed(1)).join(' '));
  }
  $('most').textContent = '(at most ' + number(most) + ')';
}

function drops(now, seconds) {
  const body = document.createElement('tbody');
  body.id = 'drops';
  for (const [why, total] of Object.entries(now.drops)) {
    const each = before ? Math.max(0, total - (before.drops[why] || 0)) / seconds : 0;
    const row = body.insertRow();
    if (each > 0) row.className = 'hot';
    cells(row, [why], [number(each), 'number'], [number(total), 'number']);
  }
  $('drops').replaceWith(body);
}

function devices(now) {
  const wanted = $('filter').value.trim().toLowerCase();
  const rows = now.device_list.filter(d => (d.id + ' ' + d.address).toLowerCase().includes(wanted));
  rows.sort((a, b) => a.seconds - b.seconds || (a.id < b.id ? -1 : 1));
  const body = document.createElement('tbody');
  body.id = 'devices';
  for (const d of rows) {
    cells(body.insertRow(), [d.id, 'id'], [d.path, d.path + '-path'], [d.address || 'connection lost'], [time(d.seconds)], [d.wants, 'number']);
  }
  $('devices').replaceWith(body);
  const all = now.devices.udp + now.devices.tcp;
  $('shown').textContent = all > now.device_list.length ? '(' + now.device_list.length + ' of ' + all + ')' : '';
}

function show(now, seconds) {
  const rate = what => before ? Math.max(0, now.totals[what] - before.totals[what]) / seconds : 0;
  $('id').textContent = now.id;
  $('version').textContent = now.version;
  $('uptime').textContent = time(now.uptime_seconds);
  const state = now.draining ? 'draining' : now.short_of_memory ? 'short of memory' : 'ready';
  $('state').textContent = state;
  $('state').className = 'badge ' + (state === 'ready' ? 'good' : 'bad');
  tiles(now, rate);
  graph(rate);
  drops(now, seconds);
  devices(now);
  document.body.dataset.answers = ++answers;
}

let last = 0;
async function ask() {
  try {
    const answer = await fetch('/status.json', { cache: 'no-store' });
    if (!answer.ok) throw new Error(await answer.text());
    const now = await answer.json(), moment = performance.now();
    if (before && now.uptime_seconds < before.uptime_seconds) before = null; // it was started again
    show(now, Math.max(0.001, (moment - last) / 1000));
    before = now;
    last = moment;
  } catch (error) {
    $('state').textContent = 'no answer';
    $('state').className = 'badge bad';
  }
  setTimeout(ask, 1000);
}
ask();
