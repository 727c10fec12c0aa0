// Where the graph's nodes stand. Straight flows are set in lines like a text; the others are laid out by dagre.
import { Graph, layout } from "../../vendor/dagre.js";

const HEIGHT = 34;
const GAP = { x: 34, y: 26 };
const MARGIN = 14;
const LABEL = 18; // room above a loop's nodes for what it says

/** Tell how wide a node must be; wide characters count twice. */
export function widthOf(text) {
  const units = [...text].reduce((sum, one) => sum + (one.codePointAt(0) > 0x2e80 ? 2 : 1), 0);
  return Math.round(Math.max(84, Math.min(220, units * 7.4 + 44)));
}

function sized(node) {
  return { ...node, width: node.kind === "switch" ? Math.min(240, widthOf(node.name) + 12) : widthOf(node.name), height: HEIGHT };
}

function straight({ nodes, edges, groups }) {
  if (groups.length || nodes.some((node) => node.kind !== "task") || edges.length !== Math.max(0, nodes.length - 1)) return false;
  return edges.every((edge, at) => edge.source === nodes[at].id && edge.target === nodes[at + 1].id);
}

/** Set nodes in lines of a width. */
function lines(nodes, edges, width) {
  const placed = [];
  let [x, y, right] = [MARGIN, MARGIN, 0];
  for (const node of nodes) {
    if (x > MARGIN && x + node.width > width - MARGIN) [x, y] = [MARGIN, y + HEIGHT + GAP.y];
    placed.push({ ...node, x: x + node.width / 2, y: y + HEIGHT / 2 });
    right = Math.max(right, x + node.width);
    x += node.width + GAP.x;
  }
  const by = new Map(placed.map((node) => [node.id, node]));
  const ways = edges.map((edge) => ({ ...edge, points: between(by.get(edge.source), by.get(edge.target)) }));
  return { nodes: placed, edges: ways, groups: [], width: right + MARGIN, height: y + HEIGHT + MARGIN };
}

function between(from, to) {
  if (from.y === to.y) return [[from.x + from.width / 2, from.y], [to.x - to.width / 2, to.y]];
  const middle = (from.y + to.y) / 2;
  return [[from.x, from.y + HEIGHT / 2], [from.x, middle], [to.x, middle], [to.x, to.y - HEIGHT / 2]];
}

function byDagre(nodes, edges, groups, direction) {
  const graph = new Graph({ compound: true, multigraph: true });
  graph.setGraph({ rankdir: direction, nodesep: 18, ranksep: 40, marginx: MARGIN, marginy: MARGIN + LABEL });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const group of groups) graph.setNode(group.id, {});
  for (const node of nodes) graph.setNode(node.id, { width: node.width, height: node.height });
  for (const one of [...groups.map((group) => [group.id, group.parent]), ...nodes.map((node) => [node.id, node.group])])
    if (one[1]) graph.setParent(one[0], one[1]);
  const forward = edges.filter((edge) => edge.kind !== "back");
  for (const [at, edge] of forward.entries()) {
    const label = edge.label ? { width: edge.label.length * 6.6 + 8, height: 16, labelpos: "c" } : {};
    graph.setEdge(edge.source, edge.target, label, String(at));
  }
  layout(graph);
  const placed = nodes.map((node) => ({ ...node, x: graph.node(node.id).x, y: graph.node(node.id).y }));
  const boxes = groups.map((group) => boxOf(group, graph.node(group.id)));
  const ways = forward.map((edge, at) => {
    const way = graph.edge(edge.source, edge.target, String(at));
    return { ...edge, points: way.points.map((point) => [point.x, point.y]), at: edge.label ? [way.x, way.y] : null };
  });
  const { width, height } = graph.graph();
  return { nodes: placed, edges: ways, groups: boxes, width, height, backs: edges.filter((edge) => edge.kind === "back") };
}

function boxOf(group, { x, y, width, height }) {
  return { ...group, x: x - width / 2, y: y - height / 2 - LABEL, width, height: height + LABEL };
}

/** Lead a loop's way back along the inner edge of its box. */
function back(edge, drawn, direction) {
  const by = new Map(drawn.nodes.map((node) => [node.id, node]));
  const [from, to] = [by.get(edge.source), by.get(edge.target)];
  const group = drawn.groups.find((one) => one.id === to.group);
  if (direction === "TB") {
    const right = (group ? group.x + group.width : Math.max(from.x + from.width / 2, to.x + to.width / 2) + 20) - 7;
    const shift = from === to ? HEIGHT / 4 : 0;
    const [below, above] = [from.y + shift, to.y - shift];
    return { ...edge, points: [[from.x + from.width / 2, below], [right, below], [right, above], [to.x + to.width / 2, above]], at: null };
  }
  const bottom = (group ? group.y + group.height : Math.max(from.y, to.y) + HEIGHT) - 7;
  const shift = from === to ? from.width / 4 : 0;
  const [after, before] = [from.x + shift, to.x - shift];
  return { ...edge, points: [[after, from.y + HEIGHT / 2], [after, bottom], [before, bottom], [before, to.y + HEIGHT / 2]], at: null };
}

/** Place the graph for a width; gives nodes by their middle, edges by points, and loops as boxes. */
export function placed(graph, width) {
  const nodes = graph.nodes.map(sized);
  if (straight(graph)) return lines(nodes, graph.edges, width);
  if (!graph.edges.length) return lines(nodes, [], width); // it is not known how they depend on each other
  const direction = width < 560 ? "TB" : "LR";
  const drawn = byDagre(nodes, graph.edges, graph.groups, direction);
  drawn.edges.push(...drawn.backs.map((edge) => back(edge, drawn, direction)));
  return drawn;
}
