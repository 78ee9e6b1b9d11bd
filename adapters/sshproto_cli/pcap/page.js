"use strict";
// The timeline page: rows are made only for what is visible, so that a connection may have any number of them.
(() => {
  const LINE = 0, PACKET = 1, SEALED = 2, NOTE = 3, GAP = 4, PROBLEM = 5, END = 6, RUN = 7;
  const STEP = 0, FOLD = 1, BAND = 2;
  const HEIGHTS = { arrow: 36, note: 34, stub: 26, fold: 52, band: 30 };
  const TALLEST = 30e6, PAUSE = 1, AHEAD = 400, PRINTED = 3000;
  const $ = (id) => document.getElementById(id);
  const meta = JSON.parse($("meta").textContent);
  const state = {
    phases: new Set(meta.phases.map((_, i) => i)), side: "", channel: "", name: "", text: "", found: false,
    folding: true, scale: meta.scale, zoom: 0,
  };
  let data = null, rows = null, open = new Set(), chosen = -1, shown = new Map(), printing = false;

  // -------------------------------------------------------------------------------------------------------- small things

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const number = (value) => value.toLocaleString("en");
  const count = (value, one) => `${number(value)} ${one}${value === 1 ? "" : "s"}`;
  function clock(seconds) {
    if (seconds < 10) return `${seconds.toFixed(4)} s`;
    if (seconds < 1000) return `${seconds.toFixed(2)} s`;
    const whole = Math.floor(seconds);
    const two = (value) => String(value).padStart(2, "0");
    return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  }
  function date(seconds) {
    const when = new Date(seconds * 1000);
    return Number.isNaN(when.getTime()) ? "" : when.toISOString().replace("T", " ").replace("Z", " UTC");
  }
  const sides = ["client", "server"];
  const direction = (side) => (side < 0 ? "" : `${sides[side]} to ${sides[1 - side]}`);
  const framed = (first, last) => (first < 0 ? "" : first === last ? `frame ${first}` : `frames ${first} to ${last}`);

  function lock() {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", "10"); svg.setAttribute("height", "13"); svg.setAttribute("viewBox", "-5 -13 10 13");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("fill-rule", "evenodd");
    path.setAttribute("d", "M-5 -8h1.6v-1.6a3.4 3.4 0 0 1 6.8 0v1.6h1.6v8h-10zM-1.7 -8h3.4v-1.6a1.7 1.7 0 0 0 -3.4 0z");
    svg.append(path);
    return svg;
  }

  // ---------------------------------------------------------------------------------------------------- one connection

  function load(place) {
    data = JSON.parse($(`connection-${place}`).textContent);
    const size = data.kind.length;
    data.size_ = size;
    data.lower = new Map();
    data.several = Object.keys(data.channels).length > 1;
    let now = 0;
    for (let i = 0; i < size; i++) {  // a step without a time is where the one before it is
      if (data.time[i] === null) data.time[i] = now;
      now = data.time[i];
    }
    data.crypt = new Uint8Array(size);
    let crypt = 0;
    for (let i = 0; i < size; i++) {
      data.crypt[i] = crypt;
      if (data.kind[i] === NOTE && data.side[i] >= 0) crypt |= 1 << data.side[i];
    }
    data.last = size ? Math.max(data.until, data.time[size - 1]) : 0;
    open = new Set(); chosen = -1;
    Object.assign(state, { phases: new Set(meta.phases.map((_, i) => i)), side: "", channel: "", name: "", text: "", found: false });
    dress();
    build();
    $("view").scrollTop = 0;
    show();
    detail(-1);
  }

  function dress() {
    $("title").textContent = `SSH connection ${data.number}`;
    document.title = `SSH connection ${data.number}, ${data.client.address} to ${data.server.address}`;
    $("facts").textContent = [
      date(data.start).slice(0, 19) && `${date(data.start).slice(0, 19)} UTC`, clock(data.until),
      count(data.packets, "packet"), count(data.bytes, "byte"),
    ].filter(Boolean).join("  ·  ");
    for (const side of sides) {
      const card = $(`card-${side}`);
      card.replaceChildren(
        make("b", "", side === "client" ? "Client " : "Server "), document.createTextNode(data[side].version),
        make("small", "", `${data[side].address}, has ${data[side].dialled ? "dialled" : "answered"}`),
      );
    }
    const list = $("troubles").querySelector("ul");
    $("troubles").hidden = !data.findings.length;
    $("troubles").querySelector("summary").textContent = count(data.findings.length, "finding");
    $("troubles").open = false;
    list.replaceChildren(...data.findings.map((finding, mark) => {
      const item = make("li"), button = make("button"), words = make("span");
      words.append(make("b", "", finding.severity), document.createTextNode(` ${finding.words}`),
        make("small", "", [finding.reference, framed(finding.frames[0] ?? -1, finding.frames.at(-1) ?? -1)].filter(Boolean).join(", ")));
      button.append(make("span", `badge ${finding.severity}`, String(mark + 1)), words);
      button.addEventListener("click", () => { $("troubles").open = false; seek(mark); });
      item.append(button);
      return item;
    }));
    const counts = new Map(), channels = new Map();
    const phases = meta.phases.map(() => 0);
    for (let i = 0; i < data.size_; i++) {
      phases[data.phase[i]] += 1;
      if (data.kind[i] !== NOTE) counts.set(data.name[i], (counts.get(data.name[i]) ?? 0) + 1);
      if (data.channel[i] >= 0) channels.set(data.channel[i], (channels.get(data.channel[i]) ?? 0) + 1);
    }
    $("phases").replaceChildren(...meta.phases.map((phase, i) => {
      const button = make("button", `chip ph${i}`, phase.title);
      button.type = "button"; button.title = phase.reference; button.hidden = !phases[i]; button.dataset.phase = i;
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        state.phases.has(i) ? state.phases.delete(i) : state.phases.add(i);
        button.setAttribute("aria-pressed", String(state.phases.has(i)));
        refresh();
      });
      return button;
    }));
    options($("name"), "all messages", [...counts].sort((a, b) => b[1] - a[1]).map(([id, n]) => [id, `${data.names[id]} (${number(n)})`]));
    options($("channel"), "all channels", [...channels].sort((a, b) => a[0] - b[0]).slice(0, 2000)
      .map(([id, n]) => [id, `${id} ${data.channels[id] ?? ""} (${number(n)})`]));
    $("channel").hidden = !channels.size;
    $("side").value = $("text").value = "";
    $("found").hidden = !data.findings.length;
    $("found").setAttribute("aria-pressed", "false");
    const limit = [];
    if (data.opened.length) limit.push(make("span", "", `Opened with: ${data.opened.join("; ")}.`));
    if (!data.sure) limit.push(make("span", "", "Who is the client is not certain: the key exchange does not show it."));
    if (data.dropped) limit.push(make("span", "limit", `${number(data.dropped)} packets are only counted: ${number(data.limit)} are kept one by one at most.`));
    $("remarks").replaceChildren(...limit);
  }

  function options(select, all, list) {
    select.replaceChildren(...[["", all], ...list].map(([value, text]) => {
      const option = make("option", "", text);
      option.value = value;
      return option;
    }));
  }

  // --------------------------------------------------------------------------------------------------------------- rows

  function filtered() {
    const text = state.text.trim().toLowerCase();
    const hit = (list) => list.map((each) => each.toLowerCase().includes(text));
    const names = text ? hit(data.names) : null, words = text ? hit(data.words) : null;
    const side = state.side === "" ? null : Number(state.side);
    const channel = state.channel === "" ? null : Number(state.channel);
    const name = state.name === "" ? null : Number(state.name);
    const kept = [];
    for (let i = 0; i < data.size_; i++) {
      if (!state.phases.has(data.phase[i])) continue;
      if (side !== null && data.side[i] !== side) continue;
      if (channel !== null && data.channel[i] !== channel) continue;
      if (name !== null && data.name[i] !== name) continue;
      if (state.found && !data.marks[i]) continue;
      if (text && !names[data.name[i]] && !words[data.word[i]] && !inside(i, text)) continue;
      kept.push(i);
    }
    return kept;
  }

  // Whether the details of a step have a text.
  function inside(i, text) {
    const more = data.more[i];
    if (!more) return false;
    let lower = data.lower.get(i);
    if (lower === undefined) {
      lower = JSON.stringify([more.details, more.fields]).toLowerCase();
      data.lower.set(i, lower);
    }
    return lower.includes(text);
  }

  function build() {
    const kept = filtered(), list = [], positions = [];
    const bulk = (i) => data.kind[i] !== RUN && data.bulk[i] && !data.marks[i];
    let phase = -1, at = 0;
    const band = (i) => { if (data.phase[i] !== phase) { phase = data.phase[i]; list.push({ kind: BAND, i, phase }); } };
    while (at < kept.length) {
      const i = kept[at];
      let end = at;
      if (state.folding) while (end < kept.length && bulk(kept[end]) && data.phase[kept[end]] === data.phase[i]) end++;
      band(i);
      if (end - at >= meta.shortest) {
        const members = kept.slice(at, end), opened = open.has(i);
        list.push({ kind: FOLD, i, members, opened });
        if (opened) for (const each of members) list.push({ kind: STEP, i: each, inner: true });
        at = end;
      } else {
        for (const stop = Math.max(end, at + 1); at < stop; at++) { list.push({ kind: STEP, i: kept[at] }); }
      }
    }
    place(list);
    const packets = kept.reduce((sum, i) => sum + (data.kind[i] === RUN ? data.runs[i].packets : data.kind[i] !== NOTE), 0);
    $("count").textContent = `${number(packets)} shown, in ${count(list.filter((row) => row.kind !== BAND).length, "row")}`;
    rows = { list, y: rows.y, extra: rows.extra, wait: rows.wait, total: rows.total, kept };
    $("space").style.height = `${rows.total}px`;
    $("empty").hidden = kept.length > 0;
    overview();
  }

  function own(row) {
    if (row.kind === BAND) return HEIGHTS.band;
    if (row.kind === FOLD) return HEIGHTS.fold;
    const kind = data.kind[row.i];
    return kind === NOTE ? HEIGHTS.note : kind === RUN ? HEIGHTS.fold : kind >= GAP ? HEIGHTS.stub : HEIGHTS.arrow;
  }

  // Where each row is: its own height, and room in proportion to the time since the one before it.
  function place(list) {
    const waits = new Float64Array(list.length);
    let now = null;
    for (let r = 0; r < list.length; r++) {
      const row = list[r], from = data.time[row.i];
      if (now !== null && from > now) waits[r] = from - now;
      const last = row.kind === FOLD && !row.opened ? row.members.at(-1) : row.i;
      const until = row.kind === BAND ? from : data.kind[last] === RUN ? data.runs[last].until : data.time[last];
      if (row.kind !== FOLD || !row.opened) now = Math.max(now ?? until, until);
      else now = from;
    }
    const timed = state.scale === "time";
    let factor = timed ? fair(waits, Math.max(600, list.length * 18)) * 2 ** state.zoom : 0;
    const cap = timed ? AHEAD * Math.max(1, 2 ** state.zoom / 4) : 0;
    const total = (k) => waits.reduce((sum, wait) => sum + Math.min(wait * k, cap), 0);
    while (factor && total(factor) > TALLEST - list.length * 40) factor /= 2;
    const y = new Float64Array(list.length + 1), extra = new Float64Array(list.length);
    for (let r = 0; r < list.length; r++) {
      extra[r] = timed ? Math.round(Math.min(waits[r] * factor, cap)) : waits[r] >= PAUSE ? 22 : 0;
      y[r + 1] = y[r] + extra[r] + own(list[r]);
    }
    rows = { y, extra, wait: waits, cut: cap, total: y[list.length] + 30 };
    state.factor = factor; state.cap = cap;
  }

  // Points for a second, so that all waits, none longer than the cap, take the room that there is.
  function fair(waits, room) {
    const some = Array.from(waits).filter((wait) => wait > 0);
    if (!some.length) return 0;
    let low = 0, high = AHEAD / some.reduce((a, b) => Math.min(a, b));
    for (let round = 0; round < 60; round++) {
      const middle = (low + high) / 2;
      let sum = 0;
      for (const wait of some) sum += Math.min(wait * middle, AHEAD);
      if (sum > room) high = middle; else low = middle;
    }
    return high;
  }

  // The last row that begins at or above a height.
  function find(height) {
    let low = 0, high = rows.list.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (rows.y[middle] <= height) low = middle; else high = middle - 1;
    }
    return low;
  }

  function show() {
    const view = $("view"), space = $("space");
    let first = 0, last = rows.list.length - 1;
    if (!printing) {
      first = find(view.scrollTop - 200);
      last = find(view.scrollTop + view.clientHeight + 200);
    } else last = Math.min(last, PRINTED - 1);
    for (const [r, node] of shown) if (r < first || r > last) { node.remove(); shown.delete(r); }
    const fresh = document.createDocumentFragment();
    for (let r = first; r <= last && rows.list.length; r++) {
      if (shown.has(r)) continue;
      const node = draw(r);
      shown.set(r, node);
      fresh.append(node);
    }
    space.append(fresh);
    sketch();
  }

  function refresh(keep = true) {
    const before = chosen;
    const view = $("view");
    const anchor = rows.list.length ? rows.list[find(view.scrollTop)].i : 0;
    build();
    for (const node of shown.values()) node.remove();
    shown.clear();
    if (keep) {
      const r = rows.list.findIndex((row) => row.i >= anchor);
      view.scrollTop = r > 0 ? rows.y[r] : 0;
    }
    chosen = rows.kept.includes(before) ? before : -1;
    show();
  }

  function draw(r) {
    const row = rows.list[r], i = row.i, side = row.kind === STEP ? data.side[i] : -1;
    const node = make("div", `row ph${data.phase[i]}`);
    node.id = `row-${r}`;
    node.dataset.row = r;
    node.setAttribute("role", "option");
    node.setAttribute("aria-setsize", rows.list.length); node.setAttribute("aria-posinset", r + 1);
    node.style.top = `${rows.y[r]}px`;
    node.style.height = `${rows.y[r + 1] - rows.y[r]}px`;
    node.style.setProperty("--own", `${own(row)}px`);
    const lane = make("div", "lane");
    for (const each of [0, 1]) lane.append(make("div", `rail ${sides[each]}${(data.crypt[i] >> each) & 1 ? " crypt" : ""}`));
    const room = rows.extra[r];
    if (room >= 18) {
      const cut = state.scale === "time" && rows.wait[r] * state.factor > state.cap * 1.001;
      const wait = make("div", `wait${cut ? " cut" : ""}`, clock(rows.wait[r]) + (cut ? ", cut" : " later"));
      wait.style.top = `${room / 2 - 9}px`;
      lane.append(wait);
    }
    const body = make("div", "own");
    lane.append(body);
    const time = make("div", "time"), size = make("div", "size");
    if (row.kind === BAND) {
      node.classList.add("heading");
      node.append(make("div", "band", meta.phases[row.phase].title), lane, size);
      size.textContent = meta.phases[row.phase].reference;
      return node;
    }
    time.textContent = clock(data.time[i]);
    if (side >= 0) node.classList.add(sides[side]);
    if (row.kind === FOLD || data.kind[i] === RUN) folded(row, body, size);
    else step(i, node, body, size);
    node.append(time, lane, size);
    if (i === chosen && (row.kind === STEP || !row.opened)) mark(node);
    return node;
  }

  function step(i, node, body, size) {
    const kind = data.kind[i], name = data.names[data.name[i]], words = data.words[data.word[i]];
    if (kind === NOTE) {
      const note = make("div", "note");
      if (data.side[i] >= 0) note.append(lock());
      note.append(words);
      body.append(note);
      return;
    }
    if (kind >= GAP) {
      if (kind !== END) node.classList.add("trouble");
      body.append(make("div", "stub"), make("div", "stubtext", kind === END ? name : `${name}: ${words}`));
    } else {
      if (data.encrypted[i]) node.classList.add("crypted");
      const label = make("div", "label");
      label.append(make("b", "", name), document.createTextNode(words));
      if (data.channel[i] >= 0 && data.several) label.append(make("small", "", `  channel ${data.channel[i]}`));
      body.append(label, make("div", "shaft"));
    }
    if (data.size[i]) size.append(make("span", "", `${number(data.size[i])} B`));
    badges(i, node, size);
  }

  function badges(i, node, size) {
    const marks = data.marks[i] ?? [];
    for (const each of marks.slice(0, 3)) size.append(make("span", `badge ${data.findings[each].severity}`, String(each + 1)));
    if (marks.length > 3) size.append(make("span", "", `+${marks.length - 3}`));
    if (marks.some((each) => ["critical", "high"].includes(data.findings[each].severity))) node.classList.add("grave");
  }

  // What a fold holds: packets and bytes of each side, and of each kind.
  function totals(row) {
    const both = [[0, 0], [0, 0]], kinds = new Map();
    const add = (side, name, channel, packets, bytes) => {
      if (side >= 0) { both[side][0] += packets; both[side][1] += bytes; }
      const key = `${side} ${name} ${channel}`;
      const seen = kinds.get(key) ?? [side, name, channel, 0, 0];
      seen[3] += packets; seen[4] += bytes;
      kinds.set(key, seen);
    };
    if (row.kind === FOLD) for (const i of row.members) add(data.side[i], data.name[i], data.channel[i], 1, data.size[i]);
    else for (const each of data.runs[row.i].counts) add(...each);
    const list = [...kinds.values()].sort((a, b) => b[4] - a[4]);
    const packets = list.reduce((sum, each) => sum + each[3], 0);
    const unit = list.some((each) => data.names[each[1]] === meta.pieces) ? "piece" : "packet";
    const until = row.kind === FOLD ? data.time[row.members.at(-1)] : data.runs[row.i].until;
    return { both, list, packets, unit, lasted: until - data.time[row.i], bytes: list.reduce((sum, each) => sum + each[4], 0) };
  }

  function folded(row, body, size) {
    const sum = totals(row), fold = make("div", `fold${row.opened ? " open" : ""}`);
    fold.append(make("b", "", `${count(sum.packets, sum.unit)} in ${clock(sum.lasted)}`));
    const [out, back] = sum.both;
    if (out[0]) fold.append(make("span", "out", `${number(out[0])}, ${number(out[1])} B`));
    if (back[0]) fold.append(make("span", "back", `${number(back[0])}, ${number(back[1])} B`));
    const names = [...new Set(sum.list.map((each) => data.names[each[1]]))];
    fold.append(make("span", "", names.slice(0, 3).join(", ") + (names.length > 3 ? ", …" : "")));
    if (row.kind === STEP) fold.append(make("span", "", "only counted"));
    body.append(fold);
    size.append(make("span", "", `${number(sum.bytes)} B`));
  }

  // ------------------------------------------------------------------------------------------------------------ details

  function mark(node) {
    node.classList.add("chosen");
    node.setAttribute("aria-selected", "true");
    $("view").setAttribute("aria-activedescendant", node.id);
  }

  function choose(r) {
    if (r < 0 || r >= rows.list.length || rows.list[r].kind === BAND) return;
    chosen = rows.list[r].i;
    const view = $("view"), top = rows.y[r] + rows.extra[r], bottom = rows.y[r + 1];
    if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = bottom - view.clientHeight + 40;
    if (top < view.scrollTop) view.scrollTop = Math.max(0, top - 40);
    show();
    for (const node of shown.values()) { node.classList.remove("chosen"); node.removeAttribute("aria-selected"); }
    if (shown.has(r)) mark(shown.get(r));
    detail(r);
  }

  function list(pairs) {
    const dl = make("dl");
    for (const [label, value] of pairs) {
      if (value === "" || value === null || value === undefined) continue;
      dl.append(make("dt", "", label), make("dd", "", Array.isArray(value) ? value.join(", ") || "none" : String(value)));
    }
    return dl;
  }

  function detail(r) {
    const aside = $("detail");
    aside.hidden = r < 0;
    if (r < 0) { overview(); return; }
    const row = rows.list[r], i = row.i, close = make("button", "close", "✕"), parts = [close];
    close.type = "button"; close.title = "close (Escape)"; close.setAttribute("aria-label", "close");
    close.addEventListener("click", () => { chosen = -1; refresh(); detail(-1); $("view").focus(); });
    if (row.kind === FOLD || data.kind[i] === RUN) parts.push(...foldDetail(row, r));
    else parts.push(...stepDetail(i));
    aside.replaceChildren(...parts);
    aside.scrollTop = 0;
    overview();
  }

  function foldDetail(row, r) {
    const sum = totals(row), table = make("table"), head = make("tr");
    for (const title of ["from", "message", "channel", "packets", "bytes"]) head.append(make("th", "", title));
    table.append(head);
    for (const [side, name, channel, packets, bytes] of sum.list.slice(0, 200)) {
      const line = make("tr");
      line.append(make("td", "", side < 0 ? "" : sides[side]), make("td", "", data.names[name]),
        make("td", "n", channel < 0 ? "" : channel), make("td", "n", number(packets)), make("td", "n", number(bytes)));
      table.append(line);
    }
    const parts = [make("h2", "", `${count(sum.packets, sum.unit)}`), list([
      ["from", clock(data.time[row.i])], ["lasted", clock(sum.lasted)], ["bytes", number(sum.bytes)],
      ["frames", row.kind === FOLD ? framed(data.first[row.i], data.last_[row.members.at(-1)]) : framed(data.first[row.i], data.last_[row.i])],
    ])];
    if (row.kind === FOLD) {
      const button = make("button", "", row.opened ? "fold again" : "show them one by one");
      button.type = "button"; button.id = "unfold";
      button.addEventListener("click", () => toggle(r));
      parts.push(button);
    } else parts.push(make("p", "", "These were only counted: the limit of what is kept one by one was reached."));
    return [...parts, make("h3", "", "What was sent"), table];
  }

  function stepDetail(i) {
    const more = data.more[i] ?? {}, channel = data.channel[i], parts = [];
    const kind = data.kind[i];
    parts.push(make("h2", "", kind === NOTE ? data.words[data.word[i]].split(": ")[0] : data.names[data.name[i]]));
    if (data.words[data.word[i]]) parts.push(make("p", "", data.words[data.word[i]]));
    const marks = data.marks[i] ?? [];
    if (marks.length) {
      parts.push(make("h3", "", "Findings"));
      for (const each of marks) {
        const finding = data.findings[each], p = make("p");
        p.append(make("span", `badge ${finding.severity}`, String(each + 1)), document.createTextNode(` ${finding.severity}: ${finding.words} (${finding.reference})`));
        parts.push(p);
      }
    }
    parts.push(make("h3", "", "Packet"), list([
      ["sent by", direction(data.side[i])], ["phase", meta.phases[data.phase[i]].title],
      ["time", clock(data.time[i])], ["date", date(data.start + data.time[i])],
      ["frames", framed(data.first[i], data.last_[i])],
      ["channel", channel < 0 ? "" : `${channel} ${data.channels[channel] ?? ""}`],
      ["bytes on the wire", data.size[i] ? number(data.size[i]) : ""],
      ["message number", data.number_[i] < 0 ? "" : data.number_[i]],
      ["sequence number", data.sequence[i] < 0 ? "" : data.sequence[i]],
      ["encrypted", kind === PACKET || kind === SEALED ? (data.encrypted[i] ? `yes, keys number ${data.epoch[i]}` : "no") : ""],
      ["integrity", data.integrity[i] < 0 ? "" : meta.integrity[data.integrity[i]]],
    ]));
    if (more.details?.length) parts.push(make("h3", "", "In words"), list(more.details));
    const fields = Object.entries(more.fields ?? {});
    if (fields.length) {
      parts.push(make("h3", "", "Fields"), list(fields.map(([name, value]) =>
        [name, value !== null && typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : value])));
    }
    if (more.hex) parts.push(make("h3", "", `Payload, ${number(more.length)} bytes`), make("pre", "", dump(more.hex, more.length)));
    return parts;
  }

  function dump(hex, length) {
    const lines = [];
    for (let at = 0; at < hex.length; at += 32) {
      const bytes = hex.slice(at, at + 32).match(/../g);
      const text = bytes.map((each) => { const code = parseInt(each, 16); return code >= 32 && code < 127 ? String.fromCharCode(code) : "."; });
      lines.push(`${(at / 2).toString(16).padStart(4, "0")}  ${bytes.join(" ").padEnd(47)}  ${text.join("")}`);
    }
    if (hex.length < 2 * length) lines.push(`and ${number(length - hex.length / 2)} more`);
    return lines.join("\n");
  }

  function toggle(r) {
    const row = rows.list[r];
    if (row.kind !== FOLD) return;
    open.has(row.i) ? open.delete(row.i) : open.add(row.i);
    chosen = row.i;
    const top = $("view").scrollTop;
    build();
    for (const node of shown.values()) node.remove();
    shown.clear();
    $("view").scrollTop = top;
    show();
    detail(rows.list.findIndex((each) => each.kind === FOLD && each.i === row.i));
  }

  // Go to the first step that shows a finding, or the next one after the chosen.
  function seek(mark = null, step = 1) {
    const place = (i) => mark === null ? data.marks[i] : data.marks[i]?.includes(mark);
    const order = [...Array(data.size_).keys()];
    if (step < 0) order.reverse();
    const i = order.find((each) => place(each) && (mark !== null || (step > 0 ? each > chosen : each < chosen || chosen < 0)));
    if (i === undefined) return;
    let r = rows.list.findIndex((row) => row.i === i && row.kind === STEP);
    if (r < 0) { reset(); r = rows.list.findIndex((row) => row.i === i && row.kind === STEP); }
    choose(r);
  }

  function reset() {
    Object.assign(state, { phases: new Set(meta.phases.map((_, i) => i)), side: "", channel: "", name: "", text: "", found: false });
    for (const chip of $("phases").children) chip.setAttribute("aria-pressed", "true");
    for (const id of ["side", "channel", "name", "text"]) $(id).value = "";
    $("found").setAttribute("aria-pressed", "false");
    refresh();
  }

  // ----------------------------------------------------------------------------------------------------------- overview

  const picture = document.createElement("canvas");

  // How much was sent when: the client's bytes above, the server's below, in the phases' colours.
  function overview() {
    const canvas = $("overview"), ratio = window.devicePixelRatio || 1;
    const wide = canvas.clientWidth, high = canvas.clientHeight;
    if (!wide || !data) return;
    canvas.width = picture.width = Math.round(wide * ratio); canvas.height = picture.height = Math.round(high * ratio);
    const buckets = Math.max(1, Math.floor(wide / 2)), span = data.last || 1;
    const sums = [new Float64Array(buckets), new Float64Array(buckets)], phases = new Int8Array(buckets).fill(-1);
    const put = (side, from, until, bytes, phase) => {
      const start = Math.min(buckets - 1, Math.floor(from / span * buckets));
      const stop = Math.min(buckets - 1, Math.floor(until / span * buckets));
      for (let b = start; b <= stop; b++) {
        if (side >= 0) sums[side][b] += bytes / (stop - start + 1);
        phases[b] = Math.max(phases[b], phase);
      }
    };
    for (const i of rows.kept) {
      if (data.kind[i] === RUN) {
        for (const each of data.runs[i].counts) put(each[0], data.time[i], data.runs[i].until, each[4], data.phase[i]);
      } else put(data.side[i], data.time[i], data.time[i], data.size[i], data.phase[i]);
    }
    const style = getComputedStyle(document.documentElement), most = Math.log1p(Math.max(...sums[0], ...sums[1], 1));
    const pen = picture.getContext("2d");
    pen.scale(ratio, ratio);
    const middle = high / 2;
    pen.fillStyle = style.getPropertyValue("--line");
    pen.fillRect(0, middle, wide, 1);
    for (let b = 0; b < buckets; b++) {
      if (phases[b] < 0) continue;
      pen.fillStyle = style.getPropertyValue(`--e${phases[b]}`);
      const x = b * wide / buckets, thick = Math.max(1.4, wide / buckets - 0.4);
      const up = sums[0][b] ? Math.max(2, Math.log1p(sums[0][b]) / most * (middle - 3)) : 0;
      const down = sums[1][b] ? Math.max(2, Math.log1p(sums[1][b]) / most * (middle - 3)) : 0;
      pen.fillRect(x, middle - up, thick, up);
      pen.fillRect(x, middle + 1, thick, down);
    }
    sketch();
  }

  // What part of it is on the screen.
  function sketch() {
    const canvas = $("overview"), view = $("view");
    if (!picture.width || !rows.list.length || picture.width !== canvas.width) return;
    const pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1, span = data.last || 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0);
    const from = data.time[rows.list[find(view.scrollTop)].i], until = data.time[rows.list[find(view.scrollTop + view.clientHeight)].i];
    const x = from / span * canvas.clientWidth, wide = Math.max(4, (until - from) / span * canvas.clientWidth);
    const style = getComputedStyle(document.documentElement);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 2;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.strokeRect(Math.min(x, canvas.clientWidth - 5) + 1, 1, wide, canvas.clientHeight - 2);
  }

  function travel(event) {
    const box = $("overview").getBoundingClientRect();
    const time = (event.clientX - box.left) / box.width * (data.last || 1);
    let low = 0, high = rows.list.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.time[rows.list[middle].i] < time) low = middle + 1; else high = middle;
    }
    $("view").scrollTop = Math.max(0, rows.y[low] - $("view").clientHeight / 2);
  }

  // ------------------------------------------------------------------------------------------------------------- events

  function scaled(scale) {
    state.scale = scale;
    for (const each of ["even", "time"]) $(each).setAttribute("aria-pressed", String(each === scale));
    $("zoom").disabled = scale !== "time";
    refresh();
  }

  function zoomed(value) {
    state.zoom = Math.max(-6, Math.min(10, value));
    $("zoom").value = state.zoom;
    if (state.scale !== "time") scaled("time"); else refresh();
  }

  function listen() {
    let waiting = false;
    $("view").addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; show(); });
    }, { passive: true });
    $("space").addEventListener("click", (event) => {
      const node = event.target.closest(".row");
      if (!node) return;
      const r = Number(node.dataset.row);
      if (rows.list[r].kind === FOLD && event.target.closest(".fold")) toggle(r); else choose(r);
    });
    $("view").addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoomed(state.zoom - Math.sign(event.deltaY) / 2);
    }, { passive: false });
    for (const id of ["side", "channel", "name"]) $(id).addEventListener("change", () => { state[id] = $(id).value; refresh(); });
    let typing = 0;
    $("text").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => { state.text = $("text").value; refresh(false); }, 120);
    });
    $("found").addEventListener("click", () => {
      state.found = !state.found;
      $("found").setAttribute("aria-pressed", String(state.found));
      refresh();
    });
    $("folding").addEventListener("change", () => { state.folding = $("folding").checked; refresh(); });
    $("reset").addEventListener("click", reset);
    $("even").addEventListener("click", () => scaled("even"));
    $("time").addEventListener("click", () => scaled("time"));
    $("zoom").addEventListener("input", () => zoomed(Number($("zoom").value)));
    $("connection").addEventListener("change", () => {
      for (const node of shown.values()) node.remove();
      shown.clear();
      load(Number($("connection").value));
    });
    $("overview").addEventListener("pointerdown", (event) => { $("overview").setPointerCapture(event.pointerId); travel(event); });
    $("overview").addEventListener("pointermove", (event) => { if (event.buttons) travel(event); });
    document.addEventListener("keydown", key);
    window.addEventListener("resize", () => { overview(); show(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", overview);
    window.addEventListener("beforeprint", () => { printing = true; $("troubles").open = true; show(); });
    window.addEventListener("afterprint", () => { printing = false; $("troubles").open = false; show(); });
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (typing) { event.target.blur(); $("view").focus(); } else if (!$("detail").hidden) { chosen = -1; refresh(); detail(-1); }
      return;
    }
    if (typing) return;
    const now = rows.list.findIndex((row) => row.i === chosen && row.kind !== BAND);
    const move = (from, by) => {
      let r = from + by;
      while (r >= 0 && r < rows.list.length && rows.list[r].kind === BAND) r += by;
      choose(r);
    };
    const start = find($("view").scrollTop);
    const keys = {
      ArrowDown: () => move(now < 0 ? start - 1 : now, 1), j: () => move(now < 0 ? start - 1 : now, 1),
      ArrowUp: () => move(now < 0 ? start + 1 : now, -1), k: () => move(now < 0 ? start + 1 : now, -1),
      Home: () => move(-1, 1), End: () => move(rows.list.length, -1),
      Enter: () => { if (now >= 0) toggle(now); }, " ": () => { if (now >= 0) toggle(now); },
      ArrowRight: () => { if (now >= 0 && rows.list[now].kind === FOLD && !rows.list[now].opened) toggle(now); },
      ArrowLeft: () => { if (now >= 0 && rows.list[now].kind === FOLD && rows.list[now].opened) toggle(now); },
      "+": () => zoomed(state.zoom + 0.5), "=": () => zoomed(state.zoom + 0.5), "-": () => zoomed(state.zoom - 0.5),
      t: () => scaled(state.scale === "time" ? "even" : "time"),
      "/": () => $("text").focus(), n: () => seek(null, 1), p: () => seek(null, -1),
    };
    if (event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
    if (event.target.tagName === "SUMMARY") return;
    const does = keys[event.key];
    if (does) { event.preventDefault(); does(); }
  }

  options($("connection"), "", meta.connections.map((text, i) => [i, text]));
  $("connection").firstChild.remove();
  $("connection").hidden = meta.connections.length < 2;
  if (meta.left_out) $("connection").title = `${number(meta.left_out)} more connections are not on this page`;
  $("more").textContent = meta.left_out ? `${count(meta.left_out, "more connection")} in the capture: not on this page.` : "";
  $("zoom").disabled = state.scale !== "time";
  for (const each of ["even", "time"]) $(each).setAttribute("aria-pressed", String(each === state.scale));
  listen();
  load(0);
  $("view").focus({ preventScroll: true });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
