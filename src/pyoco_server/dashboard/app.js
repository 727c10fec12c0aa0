// Shows the last runs and the workers, and asks again every two seconds.
const texts = {
  en: {
    runs: "Runs", workers: "Workers", run_id: "Run", status: "Status", flow_name: "Flow", tag: "Tag",
    worker_id: "Worker", updated_at: "Updated", error: "Error", state: "State", tags: "Tags",
    current_run_id: "Current run", last_seen_at: "Last seen",
    noRuns: "No runs yet. Submit one:", noWorkers: "No worker is there. Start one:",
    live: "live", away: "The server does not answer; trying again.",
  },
  ja: {
    runs: "実行", workers: "ワーカー", run_id: "実行ID", status: "状態", flow_name: "フロー", tag: "タグ",
    worker_id: "ワーカー", updated_at: "更新", error: "エラー", state: "状態", tags: "タグ",
    current_run_id: "実行中", last_seen_at: "最終確認",
    noRuns: "実行はまだありません。次のように投入します：", noWorkers: "ワーカーがいません。次のように起動します：",
    live: "接続中", away: "サーバーが応答しません。再試行しています。",
  },
};
const text = texts[document.documentElement.lang] ?? texts.en;
const marks = { COMPLETED: "✔", FAILED: "✖", CANCELLED: "⊘", RUNNING: "▶", PENDING: "…", CANCELLING: "⊘" };

for (const element of document.querySelectorAll("[data-text]")) element.textContent = text[element.dataset.text];

function element(name, content, className) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (className) made.className = className;
  return made;
}

function shown(column, value) {
  if (value === null || value === undefined) return "";
  if (column.endsWith("_at")) return new Date(value * 1000).toLocaleTimeString();
  if (column === "status") return `${marks[value] ?? ""} ${value}`;
  return Array.isArray(value) ? value.join(", ") : String(value);
}

function fill(id, columns, items, emptyText, command) {
  const place = document.getElementById(id);
  if (!items.length) {
    place.replaceChildren(element("p", emptyText), element("pre", command));
    return;
  }
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const column of columns) head.append(element("th", text[column]));
  const body = table.createTBody();
  for (const item of items) {
    const row = body.insertRow();
    for (const column of columns) row.append(element("td", shown(column, item[column]), column.endsWith("_id") ? "id" : ""));
  }
  place.replaceChildren(table);
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  const state = document.getElementById("state");
  try {
    const [runs, workers] = await Promise.all([get("/runs?limit=50"), get("/workers?scope=all")]);
    fill("runs", ["run_id", "status", "flow_name", "tag", "worker_id", "updated_at", "error"], runs, text.noRuns,
      "pyoco-client submit-yaml --workflow-file flow.yaml --flow-name main --tag cpu");
    fill("workers", ["worker_id", "state", "tags", "current_run_id", "last_seen_at"], workers, text.noWorkers,
      "pyoco-worker --tags cpu --worker-id cpu-1");
    state.textContent = text.live;
  } catch {
    state.textContent = text.away;
  }
  setTimeout(refresh, 2000);
}

refresh();
