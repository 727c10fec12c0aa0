// The flow's graph, with the state of each task.
import { html, useEffect, useMemo, useRef, useState } from "../../html.js";
import { has, t } from "../../i18n.js";
import { look, statusWord } from "../../parts/status.js";
import { recordOf, taskStatus } from "./tasks.js";

const ROUND = 8;

/** Draw a way through points with rounded corners. */
function path(points) {
  const [first, ...others] = points;
  let text = `M${first[0]} ${first[1]}`;
  for (const [at, point] of others.entries()) {
    const next = others[at + 1];
    if (!next) {
      text += `L${point[0]} ${point[1]}`;
      continue;
    }
    const before = toward(point, points[at], ROUND);
    const after = toward(point, next, ROUND);
    text += `L${before[0]} ${before[1]}Q${point[0]} ${point[1]} ${after[0]} ${after[1]}`;
  }
  return text;
}

function toward([x, y], [toX, toY], most) {
  const length = Math.hypot(toX - x, toY - y) || 1;
  const step = Math.min(most, length / 2) / length;
  return [x + (toX - x) * step, y + (toY - y) * step];
}

function shortened(text, width) {
  const most = Math.floor((width - 40) / 7.2);
  return text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text;
}

function TaskNode({ node, run, selected, onTask }) {
  const status = taskStatus(run, node.name);
  const record = recordOf(run, node.name);
  const tried = record.tries > 1 && record.try > 1 ? ` ${record.try}/${record.tries}` : "";
  const name = `${node.name}: ${statusWord(status)}${tried && ` (${t("task.try", { n: record.try, most: record.tries })})`}`;
  const press = (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      onTask(node.name);
    }
  };
  return html`<g class="node ${look(status)} ${selected ? "selected" : ""}" data-task=${node.name} role="button" tabindex="0" aria-label=${name} aria-pressed=${selected}
    transform=${`translate(${node.x - node.width / 2} ${node.y - node.height / 2})`} onClick=${() => onTask(node.name)} onKeyDown=${press}>
    <title>${name}</title>
    <rect width=${node.width} height=${node.height} rx="8" />
    <circle cx="16" cy=${node.height / 2} r="4.5" />
    <text x="28" y=${node.height / 2} dominant-baseline="central">${shortened(node.name, node.width)}</text>
    ${tried && html`<text class="tries" x=${node.width} y="-6" text-anchor="end">${tried.trim()}</text>`}
  </g>`;
}

function SwitchNode({ node }) {
  const { width, height } = node;
  const edge = `0,${height / 2} 12,0 ${width - 12},0 ${width},${height / 2} ${width - 12},${height} 12,${height}`;
  return html`<g class="node switch" transform=${`translate(${node.x - width / 2} ${node.y - height / 2})`}>
    <title>${t("graph.switch", { on: node.name })}</title>
    <polygon points=${edge} />
    <text x=${width / 2} y=${height / 2} text-anchor="middle" dominant-baseline="central">${shortened(node.name, width)}</text>
  </g>`;
}

/** The edges with what is written at them: of those to a join of which one is enough, that too. */
function worded(graph, any) {
  const edges = graph.edges.map((edge) => (edge.kind === "any" ? { ...edge, label: edge.label ? `${edge.label} · ${any}` : any } : edge));
  return { ...graph, edges };
}

function loopLabel(group) {
  return has(`graph.${group.kind}`) ? t(`graph.${group.kind}`, { of: group.label }) : group.label;
}

/** `graph` is what GET /runs/{id}/graph tells. */
export function FlowGraph({ run, graph, task, onTask }) {
  const frame = useRef(null);
  const [width, setWidth] = useState(0);
  const [place, setPlace] = useState(null);
  useEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width / 20) * 20));
    watcher.observe(frame.current);
    import("./layout.js").then((module) => setPlace(() => module.placed));
    return () => watcher.disconnect();
  }, []);
  const any = t("graph.any");
  const drawn = useMemo(() => (place && width ? place(worded(graph, any), width) : null), [place, graph, width, any]);
  useEffect(() => {
    const node = task && frame.current.querySelector(`[data-task="${CSS.escape(task)}"]`);
    if (node) centre(frame.current, node);
  }, [task, drawn !== null]);
  return html`<div class="graph" ref=${frame} tabindex="0" role="group" aria-label=${t("graph.label")}>
    ${drawn && html`<svg width=${drawn.width} height=${drawn.height} viewBox=${`0 0 ${drawn.width} ${drawn.height}`}>
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8Z" /></marker></defs>
      ${drawn.groups.map((group) => html`<g key=${group.id} class="loop"><rect x=${group.x} y=${group.y} width=${group.width} height=${group.height} rx="10" />
        <text x=${group.x + 10} y=${group.y + 14}>↻ ${loopLabel(group)}</text></g>`)}
      ${drawn.edges.map((edge, at) => html`<g key=${at} class="edge ${edge.kind}"><path d=${path(edge.points)} marker-end="url(#arrow)" />
        ${edge.at && html`<text x=${edge.at[0]} y=${edge.at[1]} text-anchor="middle" dominant-baseline="central">${edge.label}</text>`}</g>`)}
      ${drawn.nodes.map((node) => (node.kind === "switch" ? html`<${SwitchNode} key=${node.id} node=${node} />`
        : html`<${TaskNode} key=${node.id} node=${node} run=${run} selected=${node.name === task} onTask=${onTask} />`))}
    </svg>`}
    ${graph.cut && html`<p class="note">${t("graph.cut")}</p>`}
    ${!graph.source && graph.nodes.length > 1 && html`<p class="none">${t("graph.loose")}</p>`}
  </div>`;
}

/** Scroll the frame, and nothing around it, to a node. */
function centre(frame, node) {
  const outer = frame.getBoundingClientRect();
  const inner = node.getBoundingClientRect();
  if (inner.top < outer.top || inner.bottom > outer.bottom) frame.scrollTop += inner.top - outer.top - (outer.height - inner.height) / 2;
  if (inner.left < outer.left || inner.right > outer.right) frame.scrollLeft += inner.left - outer.left - (outer.width - inner.width) / 2;
}
