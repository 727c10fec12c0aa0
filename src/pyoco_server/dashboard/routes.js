// The views, by their place in the address. A view is a module whose `View` gets the path's parts and the query.
// `nav` is the text under which the view stands in the navigation, for those whose `role` is enough; `keys` go there.
export const ROUTES = [
  { pattern: "/", nav: "nav.overview", keys: "g o", load: () => import("./views/overview/view.js") },
  { pattern: "/runs", nav: "nav.runs", keys: "g r", load: () => import("./views/runs/view.js") },
  { pattern: "/queues", nav: "nav.queues", keys: "g q", load: () => import("./views/queues/view.js") },
  { pattern: "/workers", nav: "nav.workers", keys: "g w", load: () => import("./views/workers/view.js") },
  { pattern: "/deadletters", nav: "nav.deadletters", keys: "g d", load: () => import("./views/deadletters/view.js") },
  { pattern: "/wheels", nav: "nav.wheels", keys: "g l", load: () => import("./views/wheels/view.js") },
  { pattern: "/audit", nav: "nav.audit", keys: "g a", role: "admin", load: () => import("./views/audit/view.js") },
  { pattern: "/runs/:id", load: () => import("./views/run/view.js") },
];

/** Where the page begins. */
export const HOME = "/";
